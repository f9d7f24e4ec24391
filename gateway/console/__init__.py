"""The console: web pages of the gateway, rendered here, for people who browse, try, watch and administrate."""
