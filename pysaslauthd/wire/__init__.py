"""Wire protocols as bytes and values: no sockets, no clocks, no backends."""
