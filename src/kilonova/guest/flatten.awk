# JSON on stdin -> one `path<TAB>value` line for each string, number and literal.
# Keys keep their dots' meaning (`links.0.id`); newlines inside strings become spaces.
{ text = text $0 "\n" }
END { at = 1; element("") }
function blank() { while (index(" \t\r\n", substr(text, at, 1)) && at <= length(text)) at++ }
function string(   out, c) {
  out = ""; at++
  while ((c = substr(text, at, 1)) != "\"" && at <= length(text)) {
    if (c == "\\") {
      at++; c = substr(text, at, 1)
      if (c == "u") { out = out unicode(substr(text, at + 1, 4)); at += 5; continue }
      if (c == "n" || c == "r" || c == "t") c = " "
    }
    out = out c; at++
  }
  at++
  return out
}
function unicode(hex,   n, i) {
  n = 0
  for (i = 1; i <= 4; i++) n = n * 16 + index("0123456789abcdef", tolower(substr(hex, i, 1))) - 1
  return n < 128 ? sprintf("%c", n) : "?"
}
function element(path,   c, key, n, start) {
  blank(); c = substr(text, at, 1)
  if (c == "{") {
    at++; blank()
    while (substr(text, at, 1) == "\"") {
      key = string(); blank(); at++
      element(path == "" ? key : path "." key); blank()
      if (substr(text, at, 1) == ",") at++
      blank()
    }
    at++
  } else if (c == "[") {
    at++; blank(); n = 0
    while (substr(text, at, 1) != "]" && at <= length(text)) {
      element(path == "" ? n : path "." n); n++; blank()
      if (substr(text, at, 1) == ",") at++
      blank()
    }
    at++
  } else if (c == "\"") {
    print path "\t" string()
  } else {
    start = at
    while (index(",]} \t\r\n", substr(text, at, 1)) == 0 && at <= length(text)) at++
    print path "\t" substr(text, start, at - start)
  }
}
