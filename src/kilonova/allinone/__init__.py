"""The one-machine cloud: prepares and supervises Keystone, Glance, libvirtd and our own roles for `kilonova up`."""
