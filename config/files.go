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
	"time"
)

// maxFile bounds a file; etcd, where such resources come from, takes 1.5 MiB.
const maxFile = 16 << 20

// collect reads the files that the paths name, in the order of the paths and,
// within a folder, by name. Hidden files and folders are left out, and with
// them the ..data folder of a ConfigMap's mount: its files are read by the
// links that point into it. It waits while somebody is writing them, but not for
// ever: then that is an error.
func collect(paths []string) ([]File, []Finding) { return collectBy(eachFile, paths) }

// collectBy does so by a way to read, during which files may change: then they are
// read again.
func collectBy(each reading, paths []string) (files []File, findings []Finding) {
	s := NewSettling(paths...)
	for {
		again, late := s.Wait()
		switch {
		case late != nil:
			return nil, []Finding{*late}
		case again > 0:
			time.Sleep(again)
			continue
		}
		files = nil
		findings = each(paths, func(path string, layer int, r io.Reader) error {
			data, err := io.ReadAll(r)
			if err == nil {
				files = append(files, File{Name: path, Data: data, Layer: layer})
			}
			return err
		})
		if s.unchanged() {
			return files, findings
		}
	}
}

// reading has the files read that some paths name. It is [eachFile], or a test's.
type reading func(paths []string, read func(path string, layer int, r io.Reader) error) []Finding

// eachFile has the files read that the paths name, one after the other.
func eachFile(paths []string, read func(path string, layer int, r io.Reader) error) (findings []Finding) {
	files, _, findings := find(paths)
	for _, f := range files {
		if err := open(f, read); err != nil {
			findings = append(findings, unreadable(f.path, err))
		}
	}
	return findings
}

// open has a file read.
func open(f found, read func(path string, layer int, r io.Reader) error) error {
	info, err := os.Stat(f.path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Size() > maxFile:
		return fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	r, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer r.Close()
	return read(f.path, f.layer, io.LimitReader(r, maxFile))
}

// found is a file of one of the paths.
type found struct {
	path  string
	layer int // which of the paths
}

// find returns the files that the paths name, each once, and the folders that
// they are in. What is not there is a file that cannot be read.
func find(paths []string) (files []found, folders []string, findings []Finding) {
	if len(paths) == 0 {
		findings = append(findings, Finding{Severity: Error, Message: "no configuration given: name a file or a folder"})
	}
	seen := map[string]bool{}
	add := func(path string, layer int) {
		if clean := filepath.Clean(path); !seen[clean] {
			seen[clean] = true
			files = append(files, found{path, layer})
		}
	}
	for layer, path := range paths {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			add(path, layer)
			continue
		}
		names, entered, err := list(path)
		if err != nil {
			findings = append(findings, unreadable(path, err))
		}
		if len(names) == 0 && err == nil {
			findings = append(findings, Finding{File: path, Severity: Warning, Message: "no *.yaml, *.yml or *.json file here"})
		}
		for _, n := range names {
			add(n, layer)
		}
		folders = append(folders, entered...)
	}
	return files, folders, findings
}

func unreadable(path string, err error) Finding {
	if path == "" {
		return Finding{File: `""`, Severity: Error, Message: "no path: a variable of the shell may be empty"}
	}
	return Finding{File: path, Severity: Error, Message: readError(err)}
}

// list returns the configuration files below a folder, sorted, and the folders
// that they are in. Links to files are followed, links to folders too, each folder
// once.
func list(root string) (files, folders []string, err error) {
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
		folders = append(folders, dir)
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
				files = append(files, path)
			}
		}
		return nil
	}
	err = walk(root)
	slices.Sort(files)
	return files, folders, err
}

// readError says what to do about a file that cannot be read.
func readError(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file or folder: check the path, or the target of the link"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied: let the user that runs isthmus read it"
	}
	return err.Error()
}
