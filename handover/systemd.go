package handover

import (
	"net"
	"os"
)

// Notify tells the service manager something of this process, as sd_notify(3) does:
// "READY=1", "MAINPID=4711". Where there is none that listens, it does nothing.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
