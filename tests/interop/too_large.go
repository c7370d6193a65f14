// Posts a body that is too large with the client of Go, and reads why it was refused.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// More than any buffer between a client and the hub takes.
const size = 16 << 20

func main() {
	body := make([]byte, size)
	// Of the second reader the length is not known: it is sent as chunks.
	for _, reader := range []io.Reader{bytes.NewReader(body), io.MultiReader(bytes.NewReader(body))} {
		answer, err := http.Post(os.Args[1], "application/octet-stream", reader)
		if err != nil {
			panic(err)
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != 413 || !strings.Contains(string(text), " the limit of 65536") {
			panic(fmt.Sprint(answer.Status, string(text), err))
		}
	}
	fmt.Println("done")
}
