"""SMTP AUTH, the server's side, without sockets: what is allowed, what is offered, what is said."""
