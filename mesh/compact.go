package mesh

import (
	"reflect"
	"strings"
	"unsafe"
)

// compact returns a copy of a configuration that shares no memory with it. What a
// large set leaves of itself lies scattered between what is forgotten, an object to
// a page, and holds all these pages; a copy lies together.
func compact(c *Config) *Config {
	k := copier{pointers: map[unsafe.Pointer]reflect.Value{}, strings: map[text]string{}}
	return k.copy(reflect.ValueOf(c)).Interface().(*Config)
}

// copier copies values deeply, and what several of them share once.
type copier struct {
	pointers map[unsafe.Pointer]reflect.Value
	strings  map[text]string
}

type text struct {
	data *byte
	len  int
}

// copy leaves what is not this package's, and what hides a part of itself, as it is.
func (k *copier) copy(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		at := text{unsafe.StringData(v.String()), v.Len()}
		s, known := k.strings[at]
		if !known {
			s = strings.Clone(v.String())
			k.strings[at] = s
		}
		return reflect.ValueOf(s).Convert(v.Type())
	case reflect.Pointer:
		if v.IsNil() || !open(v.Type().Elem()) {
			return v
		}
		at := v.UnsafePointer()
		if known, ok := k.pointers[at]; ok && known.Type() == v.Type() {
			return known
		}
		out := reflect.New(v.Type().Elem())
		k.pointers[at] = out
		out.Elem().Set(k.copy(v.Elem()))
		return out
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(k.copy(v.Index(i)))
		}
		return out
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for i := v.MapRange(); i.Next(); {
			out.SetMapIndex(k.copy(i.Key()), k.copy(i.Value()))
		}
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && open(f.Type) {
				out.Field(i).Set(k.copy(v.Field(i)))
			}
		}
		return out
	}
	return v
}

// open reports whether all of a type's fields can be copied.
func open(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return true
	}
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			return false
		}
	}
	return true
}
