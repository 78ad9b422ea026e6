"""X.509 certificates for the users of a cloud: `authority` holds the key that signs, `role` answers the API.

Of the roles only this one can read the key. Users' own keys never come here: the API makes them and asks with a
signing request.
"""
