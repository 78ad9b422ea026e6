"""Extensions of Neutron's API; each file is loaded by Neutron, which expects a class of the file's name in it."""
