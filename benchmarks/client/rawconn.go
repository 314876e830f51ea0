package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// rawConn is one blocking connection for ready-made requests: the least CPU a client can spend.
type rawConn struct {
	conn   net.Conn
	reader *bufio.Reader
	buffer []byte
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("penstock-benchmark"))

func dialRaw(ctx context.Context, o options) (*rawConn, error) {
	conn, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	return &rawConn{conn: conn, reader: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func dial(ctx context.Context, o options) (net.Conn, error) {
	if o.ca == "" {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", o.broker)
	}
	trust, err := o.trust()
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: trust}
	return dialer.DialContext(ctx, "tcp", o.broker)
}

func (c *rawConn) close() { _ = c.conn.Close() }

func (c *rawConn) send(request []byte) error {
	_, err := c.conn.Write(request)
	return err
}

// receive returns a response after its correlation id; it is valid until the next call.
func (c *rawConn) receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(head[:]))
	if length < 4 || length > 1<<30 {
		return nil, fmt.Errorf("response of %d bytes", length)
	}
	if cap(c.buffer) < length {
		c.buffer = make([]byte, length+length/4)
	}
	c.buffer = c.buffer[:length]
	if _, err := io.ReadFull(c.reader, c.buffer); err != nil {
		return nil, err
	}
	return c.buffer[4:], nil
}

// receiveFlexible is receive for responses whose header ends in tagged fields, which nobody sends.
func (c *rawConn) receiveFlexible() ([]byte, error) {
	body, err := c.receive()
	if err == nil && (len(body) == 0 || body[0] != 0) {
		err = fmt.Errorf("response header with tagged fields")
	}
	if err != nil {
		return nil, err
	}
	return body[1:], nil
}

// greet asks for the API versions, as every client does first.
func (c *rawConn) greet() error {
	if err := c.send(formatter.AppendRequest(nil, kmsg.NewPtrApiVersionsRequest(), 1)); err != nil {
		return err
	}
	_, err := c.receive()
	return err
}
