"""The fault harness: a whole cloud whose processes die, stall or fail at any point, and the audit afterwards.

`process` is the skin around each role through which all that it does outside of
itself passes; `cloud` puts the roles together and revives what was killed;
`scenarios` says what is done to a server; `cases` makes the faults; `audit` looks
whether what is left is exactly one of each or a clean slate.
"""
