"""A cache of rows in Redis that never goes back: the lane's side, the readers' side, and the scripts between them."""
