"""The database: connections, drivers, statements and migrations. The tables belong to the packages that write them."""
