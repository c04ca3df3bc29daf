"""How a lane, its operators and its readers use a database: a folder for each kind, behind the ports beside them."""
