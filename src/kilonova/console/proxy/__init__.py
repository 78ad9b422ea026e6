"""What faces users' browsers: pages, and WebSockets carried to guests' screens and serial lines.

Knows no database: what a token opens, and which sessions may go on, is asked of consoleauth over the bus.
"""
