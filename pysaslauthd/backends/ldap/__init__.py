"""The backend `-a ldap`: a directory is asked; facts: protocols/backends.md section 9."""
