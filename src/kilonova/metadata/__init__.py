"""What a guest is told about itself: by config drive and by the metadata service."""
