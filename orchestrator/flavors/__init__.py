"""What differs between kinds of server: flags, SQL, file names. Pure."""
