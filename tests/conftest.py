"""Makes the fixtures of the test kit known to every test."""

pytest_plugins = ["inlay_testkit.plugin"]
