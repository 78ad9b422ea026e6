"""`kilonova doctor`: a look at a deployment from end to end, which changes nothing and says what to fix where."""
