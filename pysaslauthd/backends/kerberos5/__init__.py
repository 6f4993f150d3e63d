"""The backend `-a kerberos5`: asks the KDC of a realm, and is not taken in by a false one."""
