package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile bounds a file; etcd, where such resources come from, takes 1.5 MiB.
const maxFile = 16 << 20

// collect reads the files that the paths name, in the order of the paths and,
// within a folder, by name. Hidden files and folders are left out, and with
// them the ..data folder of a ConfigMap's mount: its files are read by the
// links that point into it.
func collect(paths []string) (files []File, findings []Finding) {
	findings = eachFile(paths, func(path string, layer int, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err == nil {
			files = append(files, File{Name: path, Data: data, Layer: layer})
		}
		return err
	})
	return files, findings
}

// eachFile has the files read that the paths name, one after the other.
func eachFile(paths []string, read func(path string, layer int, r io.Reader) error) (findings []Finding) {
	fail := func(path string, err error) {
		findings = append(findings, Finding{File: path, Severity: Error, Message: readError(err)})
	}
	if len(paths) == 0 {
		findings = append(findings, Finding{Severity: Error, Message: "no configuration given: name a file or a folder"})
	}
	seen := map[string]bool{}
	open := func(path string, layer int) {
		clean := filepath.Clean(path)
		if seen[clean] {
			return
		}
		seen[clean] = true
		info, err := os.Stat(path)
		switch {
		case err != nil:
			fail(path, err)
			return
		case !info.Mode().IsRegular():
			fail(path, errors.New("not a regular file"))
			return
		case info.Size() > maxFile:
			fail(path, fmt.Errorf("larger than %d MiB", maxFile>>20))
			return
		}
		f, err := os.Open(path)
		if err == nil {
			err = read(path, layer, f)
			f.Close()
		}
		if err != nil {
			fail(path, err)
		}
	}
	for layer, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			fail(path, err)
			continue
		}
		if !info.IsDir() {
			open(path, layer)
			continue
		}
		names, err := list(path)
		if err != nil {
			fail(path, err)
		}
		if len(names) == 0 && err == nil {
			findings = append(findings, Finding{File: path, Severity: Warning, Message: "no *.yaml, *.yml or *.json file here"})
		}
		for _, n := range names {
			open(n, layer)
		}
	}
	return findings
}

// list returns the configuration files below a folder, sorted. Links to files
// are followed, links to folders too, each folder once.
func list(root string) ([]string, error) {
	var out []string
	entered := map[string]bool{}
	var walk func(dir string) error
	walk = func(dir string) error {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		if entered[real] {
			return nil
		}
		entered[real] = true
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			path := filepath.Join(dir, e.Name())
			isDir := e.IsDir()
			if e.Type()&fs.ModeSymlink != 0 {
				info, err := os.Stat(path)
				isDir = err == nil && info.IsDir()
			}
			if isDir {
				if err := walk(path); err != nil {
					return err
				}
				continue
			}
			if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
				out = append(out, path)
			}
		}
		return nil
	}
	err := walk(root)
	slices.Sort(out)
	return out, err
}

// readError says what to do about a file that cannot be read.
func readError(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file or folder: check the path given to --config, or the target of the link"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied: let the user that runs isthmus read it"
	}
	return err.Error()
}
