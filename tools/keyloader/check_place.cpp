// Finding the location of a request as nginx does, but for regular expressions: those are named instead.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "apikey/credential.hpp"
#include "check.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

using apikey::PolicyPlace;

constexpr std::uint64_t kHttpPort = 80;
constexpr std::uint64_t kHttpsPort = 443;

// "0.0.0.0:8080", "[::]:80". RETURNS: 0 for a unix socket.
std::uint64_t port_of(std::string_view listen) {
  std::uint64_t port = 0;
  const std::size_t colon = listen.rfind(':');
  if (colon != std::string_view::npos && !listen.starts_with("unix:")) {
    std::from_chars(listen.data() + colon + 1, listen.data() + listen.size(), port);
  }
  return port;
}

// How well a server_name fits: exact before `*.example.com` before `www.*`, longer before shorter. 0: not at all.
std::size_t fit_of(const std::string& written, const std::string& host) {
  constexpr std::size_t exact = std::size_t{1} << 30U;
  constexpr std::size_t leading = std::size_t{1} << 20U;
  const std::string name = lower_case(written);
  if (name == host || (name.starts_with('.') && name.substr(1) == host)) {
    return exact;
  }
  if (name.starts_with("*.") || name.starts_with('.')) {
    const std::string_view end = std::string_view{name}.substr(name.starts_with('.') ? 0 : 1);
    return host.size() > end.size() && host.ends_with(end) ? leading + end.size() : 0;
  }
  return name.ends_with(".*") && host.starts_with(name.substr(0, name.size() - 1)) ? name.size() : 0;
}

bool asks_for_keys(const ServerView& server) {
  return std::any_of(server.locations.begin(), server.locations.end(),
                     [](const LocationView& location) { return location.is(apikey::kPolicyOn); });
}

// As nginx.conf has it, or its path alone, as nginx logs it and `why` shows it. Throws UsageError where several have
// it.
const LocationView* location_named(const ServerView& server, const std::string& named) {
  std::vector<const LocationView*> possible;
  for (const LocationView& location : server.locations) {
    if (location.name() == named) {
      return &location;
    }
    if (location.is_written_out() && location.path == named) {
      possible.push_back(&location);
    }
  }
  if (possible.size() > 1) {
    throw UsageError(
        fmt::format("\"{}\" may be '{}' or '{}'; write one of them", named, possible[0]->name(), possible[1]->name()));
  }
  return possible.empty() ? nullptr : possible.front();
}

[[noreturn]] void refuse_server(const std::vector<const ServerView*>& servers) {
  std::string names;
  for (const ServerView* server : servers) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", server->name());
  }
  throw UsageError(fmt::format("{} servers are possible ({}); write the URL with its host, such as https://{}/…",
                               servers.size(), names, servers.front()->name()));
}

const ServerView* server_by_path(const NodePolicies& policies, const std::string& named) {
  std::vector<const ServerView*> possible;
  for (const ServerView& server : policies.servers) {
    if (named.empty() ? asks_for_keys(server) : location_named(server, named) != nullptr) {
      possible.push_back(&server);
    }
  }
  if (possible.empty()) {
    throw Failure(named.empty() ? "no location asks for keys"
                                : fmt::format("there is no location \"{}\"; `keyloader locations` lists them", named));
  }
  if (possible.size() > 1) {
    refuse_server(possible);
  }
  return possible.front();
}

const ServerView* server_by_host(const NodePolicies& policies, const Url& url, Proposal& found) {
  std::vector<const ServerView*> possible;
  for (const ServerView& server : policies.servers) {
    if (listens_on(server, url.port)) {
      possible.push_back(&server);
    }
  }
  const bool has_port = !possible.empty();
  if (!has_port) {
    for (const ServerView& server : policies.servers) {
      possible.push_back(&server);
    }
  }
  const ServerView* best = nullptr;
  std::size_t best_fit = 0;
  bool has_regex = false;
  std::vector<const ServerView*> rivals;  // that fit as well as the best one
  for (const ServerView* server : possible) {
    for (const std::string& name : server->names) {
      has_regex = has_regex || name.starts_with('~');
      const std::size_t fit = fit_of(name, url.host);
      if (fit > best_fit) {
        best = server;
        best_fit = fit;
        rivals.clear();
      }
      if (fit != 0 && fit == best_fit && (rivals.empty() || rivals.back() != server)) {
        rivals.push_back(server);
      }
    }
  }
  if (best != nullptr) {
    if (!has_port) {
      // Somebody else may take TLS off before nginx.
      found.remarks.push_back(
          fmt::format("No server listens on port {}; {}, which does on another, was looked at.", url.port, url.host));
    }
    if (rivals.size() > 1) {
      Texts listens;
      for (const ServerView* const rival : rivals) {
        listens.insert(listens.end(), rival->listens.begin(), rival->listens.end());
      }
      found.doubts.push_back(fmt::format("{} servers are called {}, and which one answers depends on the address ({})",
                                         rivals.size(), url.host, fmt::join(listens, ", ")));
    }
    return best;
  }
  if (!has_port) {
    throw Failure(
        fmt::format("cannot be judged: no server of nginx listens on port {}, and none is called {}; `keyloader "
                    "locations` lists them",
                    url.port, url.host));
  }
  if (possible.size() > 1) {
    found.doubts.push_back(
        fmt::format("no server is called {}: nginx takes the default_server of the port{}, which need not be {}; "
                    "write the URL with the server's name",
                    url.host, has_regex ? ", or one whose server_name is a regular expression that matches" : "",
                    possible.front()->name()));
  }
  return possible.front();
}

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '_' || c == '-';
}

// The plain characters that everything the expression matches begins with; empty where that is not plain to see.
std::string_view beginning_of(std::string_view regex) {
  if (!regex.starts_with('^')) {
    return {};
  }
  std::size_t end = 1;
  while (end < regex.size() && is_plain(regex[end])) {
    ++end;
  }
  // A quantifier makes the last of them optional.
  const bool is_counted = end < regex.size() && std::string_view{"*?{"}.find(regex[end]) != std::string_view::npos;
  return regex.substr(1, end - 1 - (is_counted && end > 1 ? 1 : 0));
}

// Likewise of its end: of `\.php$` it is `.php`.
std::string_view ending_of(std::string_view regex) {
  const std::size_t dot = regex.rfind("\\.");
  if (dot == std::string_view::npos || !regex.ends_with('$') || (dot > 0 && regex[dot - 1] == '\\')) {
    return {};
  }
  const std::string_view ending = regex.substr(dot + 1, regex.size() - dot - 2);
  return std::all_of(ending.begin() + 1, ending.end(), is_plain) ? ending : std::string_view{};
}

// Only nginx evaluates expressions; of most one can tell by how they begin or end that they do not match. Alternatives,
// and options that change what characters mean, are not gone into.
bool may_match(const LocationView& location, const std::string& path) {
  const std::string_view regex = location.path;
  for (const std::string_view hard : {"|", "(?", "(*", "\\Q"}) {
    if (regex.find(hard) != std::string_view::npos) {
      return true;
    }
  }
  const bool is_caseless = location.place == PolicyPlace::regex_nocase;
  const auto folded = [&](std::string_view text) {
    return is_caseless ? lower_case(std::string{text}) : std::string{text};
  };
  const std::string text = folded(path);
  // `$` is also before a line feed at the very end.
  return text.starts_with(folded(beginning_of(regex))) &&
         (text.ends_with(folded(ending_of(regex))) || text.ends_with('\n'));
}

bool is_regex(const LocationView& location) {
  return location.place == PolicyPlace::regex || location.place == PolicyPlace::regex_nocase;
}

// What a request comes to without regular expressions, and those expressions that nginx tries before it takes that.
struct Search {
  const LocationView* found = nullptr;
  std::vector<const LocationView*> rivals{};
};

// Among what stands directly in `outer`. RETURNS: true at an exact location, which ends nginx's search at once.
bool search_in(const ServerView& server, const LocationView& outer, const std::string& path, Search& search) {
  const LocationView* best = nullptr;
  std::vector<const LocationView*> rivals;
  const LocationView* const end = server.locations.data() + server.locations.size();
  for (const LocationView* inner = &outer + 1; inner < end && inner->depth > outer.depth; ++inner) {
    if (inner->depth != outer.depth + 1) {
      continue;
    }
    if (inner->place == PolicyPlace::exact && inner->path == path) {
      search = {.found = inner};
      return true;
    }
    const bool is_prefix = inner->place == PolicyPlace::prefix || inner->place == PolicyPlace::first_prefix;
    if (is_prefix && path.starts_with(inner->path) && (best == nullptr || inner->path.size() > best->path.size())) {
      best = inner;
    }
    if (is_regex(*inner) && may_match(*inner, path)) {
      rivals.push_back(inner);
    }
  }
  if (best != nullptr) {
    search.found = best;
    if (search_in(server, *best, path, search)) {
      return true;
    }
  }
  // `^~` keeps the expressions beside it away, not those around the location it stands in.
  if (best == nullptr || best->place != PolicyPlace::first_prefix) {
    search.rivals.insert(search.rivals.end(), rivals.begin(), rivals.end());
  }
  return false;
}

void doubt_regexes(const Search& search, Texts& doubts) {
  std::string names;
  for (const LocationView* const rival : search.rivals) {
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", rival->name());
  }
  if (!names.empty()) {
    doubts.push_back(
        fmt::format("{} has the longest prefix, but nginx takes a location by regular expression before it where one "
                    "matches, and keyloader does not evaluate {}; say with --location which of them it is",
                    search.found->name(), names));
  }
}

// The rules of the request are those of `outer`, unless a block without a name in it has others.
void look_into(const ServerView& server, const LocationView& outer, apikey::MethodSet method, bool is_named,
               Proposal& found) {
  const LocationView* const end = server.locations.data() + server.locations.size();
  for (const LocationView* inner = &outer + 1; inner < end && inner->depth > outer.depth; ++inner) {
    if (inner->depth != outer.depth + 1) {
      continue;
    }
    if (inner->place == PolicyPlace::limit_except && (method == 0 || (inner->except_methods & method) != 0)) {
      found.location = inner;
    } else if (inner->place == PolicyPlace::condition && !inner->has_rules_of(outer)) {
      const std::string sentence = fmt::format("{} has an `if`, in which other rules hold", outer.name());
      if (is_named) {
        found.remarks.push_back(sentence + ".");
      } else {
        found.doubts.push_back(fmt::format("{}; say with --location '{}' or '{}' which of the two is meant", sentence,
                                           outer.name(), inner->name()));
      }
    }
  }
}

// What nginx makes of a path before it looks for a location (ngx_http_parse_complex_uri).
void tidy_path(const std::string& text, Url& url) {
  Texts parts;
  bool ends_in_slash = true;
  for (std::size_t at = 1; at <= url.path.size();) {
    const std::size_t end = std::min(url.path.find('/', at), url.path.size());
    const std::string part = url.path.substr(at, end - at);
    ends_in_slash = part.empty() || part == "." || part == "..";
    url.has_merged_slashes = url.has_merged_slashes || (part.empty() && end < url.path.size());
    if (part == ".." && parts.empty()) {
      throw Failure(fmt::format("\"{}\" leads out of the root: nginx answers 400 to it", text));
    }
    if (part == "..") {
      parts.pop_back();
    } else if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
    at = end + 1;
  }
  if (url.path.find('\0') != std::string::npos) {
    throw Failure(fmt::format("\"{}\" has a zero byte: nginx answers 400 to it", text));
  }
  url.path.clear();
  for (const std::string& part : parts) {
    url.path.append("/").append(part);
  }
  if (ends_in_slash) {
    url.path.append("/");
  }
}

}  // namespace

bool listens_on(const ServerView& server, std::uint64_t port) {
  return std::any_of(server.listens.begin(), server.listens.end(),
                     [&](const std::string& listen) { return port_of(listen) == port; });
}

Url parse_url(const std::string& text) {
  Url url{.path = text};
  const std::size_t scheme = text.find("://");
  if (scheme != std::string::npos) {
    const std::string name = lower_case(text.substr(0, scheme));
    if (name != "http" && name != "https") {
      throw UsageError(fmt::format("\"{}\" is no URL of http or https", text));
    }
    url.is_tls = name == "https";
    url.port = url.is_tls ? kHttpsPort : kHttpPort;
    const std::size_t start = scheme + 3;
    const std::size_t end = std::min(text.find_first_of("/?#", start), text.size());
    url.host = lower_case(text.substr(start, end - start));
    url.path = text.substr(end);
    const std::size_t colon = url.host.rfind(':');
    if (colon != std::string::npos && url.host.find(']', colon) == std::string::npos) {
      const char* last = url.host.data() + url.host.size();
      const auto parsed = std::from_chars(url.host.data() + colon + 1, last, url.port);
      if (parsed.ec != std::errc{} || parsed.ptr != last) {
        throw UsageError(fmt::format("the port of \"{}\" is no number", text));
      }
      url.host.resize(colon);
    }
    if (url.host.ends_with('.')) {
      url.host.pop_back();  // as nginx does
    }
    if (url.host.empty()) {
      throw UsageError(fmt::format("\"{}\" names no host", text));
    }
  }
  url.path = url.path.substr(0, url.path.find_first_of("?#"));
  if (url.path.empty() && scheme != std::string::npos) {
    url.path.push_back('/');
  }
  if (!url.path.starts_with('/')) {
    throw UsageError(
        fmt::format("\"{}\" is no URL; write https://api.example.com/orders/1, or the path alone: /orders/1", text));
  }
  std::vector<char> buffer(url.path.size());
  std::string_view decoded;
  if (!apikey::percent_decode(url.path, buffer, decoded)) {
    throw UsageError(fmt::format("\"{}\" has a % that two hexadecimal digits do not follow", text));
  }
  url.path = std::string{decoded};
  tidy_path(text, url);
  return url;
}

Proposal find_location(const NodePolicies& policies, const Url& url, apikey::MethodSet method,
                       const std::string& named) {
  Proposal found;
  found.server = url.host.empty() ? server_by_path(policies, named) : server_by_host(policies, url, found);
  if (found.server->locations.empty()) {
    throw Failure(fmt::format("what nginx says of the server {} is damaged", found.server->name()));
  }
  if (url.has_merged_slashes) {
    found.remarks.emplace_back("// in the path was read as /, which a server with `merge_slashes off` does not do.");
  }
  if (named.empty()) {
    Search search{.found = &found.server->locations.front()};
    search_in(*found.server, found.server->locations.front(), url.path, search);
    found.location = search.found;
    doubt_regexes(search, found.doubts);
  } else {
    found.location = location_named(*found.server, named);
    if (found.location == nullptr) {
      throw Failure(fmt::format("the server {} has no location \"{}\"; `keyloader locations` lists them",
                                found.server->name(), named));
    }
  }
  look_into(*found.server, *found.location, method, !named.empty(), found);
  return found;
}

}  // namespace keyloader
