"""Guests' screens and serial lines in the browser.

`tokens` issues, consumes, expires and revokes what lets a browser in; `consoleauth` answers the proxies' questions
about them; `proxy` faces the browsers and knows no database; `pages` are what it serves.
"""
