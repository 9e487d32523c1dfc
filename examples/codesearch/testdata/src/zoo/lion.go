package zoo

/*
A Lion is a large Cat:
every Lion is an Animal.
*/
type Lion struct{ Cat }

func (l Lion) Speak() string { return "roar" }

var animals = []Animal{Cat{}, Lion{}}
