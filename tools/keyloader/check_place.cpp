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

const LocationView* location_named(const ServerView& server, const std::string& named) {
  const auto found = std::find_if(server.locations.begin(), server.locations.end(), [&](const LocationView& location) {
    return location.name() == named || (location.place == PolicyPlace::first_prefix && location.path == named);
  });
  return found == server.locations.end() ? nullptr : &*found;
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

const ServerView* server_by_host(const NodePolicies& policies, const Url& url, Texts& remarks) {
  std::vector<const ServerView*> possible;
  for (const ServerView& server : policies.servers) {
    if (std::any_of(server.listens.begin(), server.listens.end(),
                    [&](const std::string& listen) { return port_of(listen) == url.port; })) {
      possible.push_back(&server);
    }
  }
  if (possible.empty()) {
    remarks.push_back(fmt::format("No server listens on port {}; servers of all ports were looked at.", url.port));
    for (const ServerView& server : policies.servers) {
      possible.push_back(&server);
    }
  }
  const ServerView* best = nullptr;
  std::size_t best_fit = 0;
  bool has_regex = false;
  for (const ServerView* server : possible) {
    for (const std::string& name : server->names) {
      has_regex = has_regex || name.starts_with('~');
      const std::size_t fit = fit_of(name, url.host);
      if (fit > best_fit) {
        best = server;
        best_fit = fit;
      }
    }
  }
  if (best != nullptr) {
    return best;
  }
  if (possible.empty()) {
    throw Failure("nginx has no server");
  }
  remarks.push_back(
      fmt::format("No server is called {}: the first one of the port is taken, which nginx does unless "
                  "another is its default_server{}.",
                  url.host, has_regex ? " or has a server_name that is a regular expression" : ""));
  return possible.front();
}

// The location that has the longest prefix, or the exact one.
const LocationView* location_by_prefix(const ServerView& server, const std::string& path) {
  const LocationView* best = nullptr;
  for (const LocationView& location : server.locations) {
    if (location.place == PolicyPlace::exact && location.path == path) {
      return &location;
    }
    const bool is_prefix = location.place == PolicyPlace::prefix || location.place == PolicyPlace::first_prefix;
    if (is_prefix && path.starts_with(location.path) && (best == nullptr || location.path.size() > best->path.size())) {
      best = &location;
    }
  }
  return best == nullptr && !server.locations.empty() ? &server.locations.front() : best;
}

void remark_regexes(const ServerView& server, const LocationView& found, Texts& remarks) {
  if (found.place == PolicyPlace::exact || found.place == PolicyPlace::first_prefix) {
    return;
  }
  std::string names;
  for (const LocationView& location : server.locations) {
    if (location.place == PolicyPlace::regex || location.place == PolicyPlace::regex_nocase) {
      names += fmt::format("{}'{}'", names.empty() ? "" : ", ", location.name());
    }
  }
  if (!names.empty()) {
    remarks.push_back(fmt::format(
        "{} was proposed by its prefix; a location by regular expression comes before it where it matches: if one of "
        "{} does, name it with --location.",
        found.name(), names));
  }
}

}  // namespace

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
  return url;
}

Proposal find_location(const NodePolicies& policies, const Url& url, apikey::MethodSet method,
                       const std::string& named) {
  Proposal found;
  found.server = url.host.empty() ? server_by_path(policies, named) : server_by_host(policies, url, found.remarks);
  if (named.empty()) {
    found.location = location_by_prefix(*found.server, url.path);
  } else {
    found.location = location_named(*found.server, named);
    if (found.location == nullptr) {
      throw Failure(fmt::format("the server {} has no location \"{}\"; `keyloader locations` lists them",
                                found.server->name(), named));
    }
  }
  if (found.location == nullptr) {
    throw Failure(fmt::format("what nginx says of the server {} is damaged", found.server->name()));
  }
  if (named.empty()) {
    remark_regexes(*found.server, *found.location, found.remarks);
  }
  // Blocks without a name stand right behind the location they are in.
  const LocationView* const outer = found.location;
  const LocationView* const end = found.server->locations.data() + found.server->locations.size();
  for (const LocationView* inner = outer + 1; inner < end && inner->depth > outer->depth; ++inner) {
    if (inner->depth != outer->depth + 1) {
      continue;
    }
    if (inner->place == PolicyPlace::limit_except && (inner->except_methods & method) != 0) {
      found.location = inner;
    } else if (inner->place == PolicyPlace::condition && inner->is(apikey::kPolicyOn)) {
      found.remarks.push_back(fmt::format("{} has an `if`, in which other rules may hold.", outer->name()));
    }
  }
  return found;
}

}  // namespace keyloader
