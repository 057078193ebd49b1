std = "lua51"
read_globals = { "redis", "KEYS", "ARGV" }
ignore = {
  "211/guard", -- declared for the server alone
  "241/buried", "241/deaths", -- the idiom promote fills them, pop has no use for them
  "311/tokens", -- the idiom offer sets it for whoever looks again
  "311/items", -- declared where both branches see it
}
max_line_length = 126
files["redisq/cli/steps"] = { read_globals = { "redis", "KEYS", "ARGV", "inner" } } -- inner is put in front
