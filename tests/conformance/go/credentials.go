package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// credentials are what the environment says a broker asks for: CHECKS_CA, CHECKS_MECHANISM, CHECKS_USER,
// CHECKS_PASSWORD. Without CHECKS_MECHANISM it asks for nothing.
type credentials struct{ ca, mechanism, user, password string }

func credentialsFromEnvironment() credentials {
	return credentials{
		os.Getenv("CHECKS_CA"), os.Getenv("CHECKS_MECHANISM"), os.Getenv("CHECKS_USER"), os.Getenv("CHECKS_PASSWORD"),
	}
}

func (c credentials) tls() *tls.Config {
	pem, err := os.ReadFile(c.ca)
	must(err)
	authorities := x509.NewCertPool()
	holds(authorities.AppendCertsFromPEM(pem), "%s is no certificate", c.ca)
	return &tls.Config{RootCAs: authorities}
}

func (c credentials) franz() []kgo.Opt {
	switch c.mechanism {
	case "":
		return nil
	case "PLAIN":
		return []kgo.Opt{kgo.DialTLSConfig(c.tls()), kgo.SASL(plain.Auth{User: c.user, Pass: c.password}.AsMechanism())}
	case "SCRAM-SHA-256":
		login := scram.Auth{User: c.user, Pass: c.password}
		return []kgo.Opt{kgo.DialTLSConfig(c.tls()), kgo.SASL(login.AsSha256Mechanism())}
	default:
		login := scram.Auth{User: c.user, Pass: c.password}
		return []kgo.Opt{kgo.DialTLSConfig(c.tls()), kgo.SASL(login.AsSha512Mechanism())}
	}
}

func (c credentials) sarama(config *sarama.Config) {
	if c.mechanism == "" {
		return
	}
	config.Net.TLS.Enable, config.Net.TLS.Config = true, c.tls()
	config.Net.SASL.Enable, config.Net.SASL.Mechanism = true, sarama.SASLTypePlaintext
	config.Net.SASL.User, config.Net.SASL.Password = c.user, c.password
}
