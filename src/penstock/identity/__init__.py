"""Authentication: credentials, how they are verified, and what is stored of them. Authorization is in its own
package."""
