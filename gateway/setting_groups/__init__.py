"""The settings in groups; `gateway.settings.Settings` is all of them."""
