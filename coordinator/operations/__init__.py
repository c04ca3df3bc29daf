"""The operations gateway: pages for operators, which show the lanes of an application and act on them."""
