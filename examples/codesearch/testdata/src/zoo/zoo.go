// Package zoo holds animals. An Animal speaks.
package zoo

// Animal is a thing that speaks.
type Animal interface{ Speak() string }

// Cat is an Animal, and so is a Lion.
type Cat struct{}

func (Cat) Speak() string { return "meow, says the Cat" }
