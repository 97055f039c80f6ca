-- What wrk asks of a server under measurement. Arguments: METHOD PATH NAMES CONTENT-TYPE BODY-FILE
-- NAMES 0: the path is asked for as it is. Else PATH-N is asked for, N going round 0 .. NAMES-1; every
-- thread takes names of its own. A POST goes to the list that PATH-N would be in. In the body @N@ becomes a counter, @NAME@ the name, and @REVISION@ the
-- resourceVersion of the last answer for that name (which is read first). The token is in BENCH_TOKEN.

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local function put(text, mark, value)
  local from, to = text:find(mark, 1, true)
  if from == nil then return text end
  return text:sub(1, from - 1) .. value .. text:sub(to + 1)
end

function init(arguments)
  local method, path, names, content, file = unpack(arguments)
  local body = nil
  if file ~= "" then
    local opened = assert(io.open(file))
    body = opened:read("*a")
    opened:close()
    wrk.headers["Content-Type"] = content
  end
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN")
  wrk.headers["Accept"] = "application/json"
  wrk.method, wrk.path, wrk.body = method, path, body
  names = tonumber(names)
  if names == 0 then return end
  local folder, stem = path:match("^(.*/)([^/]*)$")
  local first, at, count = number * names, -1, os.time() % 100000
  local revisions, current = {}, nil
  local careful = body ~= nil and body:find("@REVISION@", 1, true) ~= nil
  request = function()
    at = (at + 1) % names
    count = count + 1
    local name = stem .. (first + at)
    current = name
    if body == nil then return wrk.format(method, folder .. name) end
    if careful and revisions[name] == nil then return wrk.format("GET", folder .. name, nil, "") end
    local target = method == "POST" and folder:sub(1, -2) or folder .. name
    local text = put(put(body, "@N@", tostring(count % 9999 + 1)), "@NAME@", name)
    if careful then text = put(text, "@REVISION@", revisions[name]) end
    return wrk.format(method, target, nil, text)
  end
  if careful then
    response = function(status, _, answer)
      revisions[current] = answer:match('"resourceVersion":"(%d+)"')
    end
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"failed":%d,"median":%d,"tail":%d}\n',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
