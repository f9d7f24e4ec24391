"""The OpenAPI document and its page, made from the routes and the tables that do the checking."""
