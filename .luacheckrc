std = "lua51"
read_globals = { "redis", "KEYS", "ARGV" }
ignore = { "211/guard", "311/tokens" } -- guard: declared for the server alone; tokens: the idiom offer may be the last that looks
max_line_length = 126
