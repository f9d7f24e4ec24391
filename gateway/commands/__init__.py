"""The commands of `farebox`, one file each."""
