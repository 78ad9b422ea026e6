"""Roles as processes of their own: what nova.conf says of a deployment, the parts that follow from it, the frame."""
