std = "lua51"
read_globals = { "redis", "KEYS", "ARGV" }
ignore = { "211/guard" } -- declared for the server alone
max_line_length = 126
