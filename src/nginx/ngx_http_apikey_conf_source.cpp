// The directive apikey_from: in which places of a request a key is looked for, and in which order.
// Called by nginx while it reads the configuration.
// Names are checked here, so that nothing on the request path has to: header names are tokens in lower case.
#include <algorithm>

#include "ngx_http_apikey_conf.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kBearer = "Bearer";
constexpr std::string_view kBasic = "Basic";
// What nginx's own parser of headers takes for a valid name, here in lower case.
constexpr std::string_view kPassed = "abcdefghijklmnopqrstuvwxyz0123456789-";
constexpr std::string_view kPassedWithUnderscores = "abcdefghijklmnopqrstuvwxyz0123456789-_";

// RFC 9110: what the name of a header or cookie is made of.
bool is_token(std::string_view text) noexcept {
  constexpr std::string_view allowed = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

// What the name of an argument may be: visible ASCII that needs no percent-encoding to stand in a query.
bool is_argument_name(std::string_view text) noexcept {
  for (const char c : text) {
    if (c <= ' ' || c >= 0x7f || std::string_view("&=#%+;\"\\<>").find(c) != std::string_view::npos) {
      return false;
    }
  }
  return !text.empty();
}

char* refuse_source(ngx_conf_t* cf, const ngx_str_t& text, const char* remedy) noexcept {
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_from: \"%V\" is not a source, write %s", &text, remedy);
  return conf_error();
}

char* parse_header_source(ngx_conf_t* cf, const ngx_str_t& text, Source& source) noexcept {
  if (!is_token(view(source.name))) {
    return refuse_source(cf, text, "header:<name> with the name of a header, such as header:X-API-Key");
  }
  ngx_strlow(source.name.data, source.name.data, source.name.len);
  if (view(source.name) == "cookie") {
    return refuse_source(cf, text, "cookie:<name>");
  }
  if (view(source.name) == "host") {
    return refuse_source(cf, text, "the name of another header");
  }
  return NGX_CONF_OK;
}

char* parse_scheme_source(ngx_conf_t* cf, const ngx_str_t& text, const Source& source) noexcept {
  const std::string_view scheme = view(source.name);
  if (is_same_ignoring_case(scheme, kBearer) || is_same_ignoring_case(scheme, kBasic)) {
    return refuse_source(cf, text, is_same_ignoring_case(scheme, kBearer) ? "bearer" : "basic");
  }
  return is_token(scheme)
             ? NGX_CONF_OK
             : refuse_source(cf, text, "scheme:<name> with a scheme of Authorization, such as scheme:ApiKey");
}

char* parse_variable_source(ngx_conf_t* cf, const ngx_str_t& text, Source& source) noexcept {
  ngx_str_t name{text.len - 1, text.data + 1};
  if (name.len == 0) {
    return refuse_source(cf, text, "$<variable>");
  }
  source.kind = SourceKind::variable;
  source.name = name;
  if (!find_place(cf, source)) {
    return conf_error();
  }
  if (source.place != nullptr) {
    return NGX_CONF_OK;
  }
  source.variable = ngx_http_get_variable_index(cf, &name);
  return source.variable == NGX_ERROR ? conf_error() : NGX_CONF_OK;
}

// Checks the name of a source. A header's is a copy of ours, as it is lower-cased in place.
char* check_name(ngx_conf_t* cf, const ngx_str_t& text, Source& source) noexcept {
  switch (source.kind) {
    case SourceKind::header:
      return parse_header_source(cf, text, source);
    case SourceKind::scheme:
      return parse_scheme_source(cf, text, source);
    case SourceKind::query:
      if (!is_argument_name(view(source.name))) {
        return refuse_source(cf, text, "query:<name> with the name of an argument, such as query:api_key");
      }
      break;
    case SourceKind::cookie:
      if (!is_token(view(source.name))) {
        return refuse_source(cf, text, "cookie:<name> with the name of a cookie, such as cookie:api_key");
      }
      break;
    case SourceKind::protocol:
      if (!is_token(view(source.name))) {
        return refuse_source(cf, text,
                             "protocol:<prefix> with what stands before the key in Sec-WebSocket-Protocol, such as "
                             "protocol:apikey.");
      }
      break;
    case SourceKind::bearer:
    case SourceKind::basic:
    case SourceKind::variable:
      break;
  }
  return NGX_CONF_OK;
}

struct KindName {
  std::string_view word;
  SourceKind kind;
};
constexpr KindName kNamedKinds[] = {{"header", SourceKind::header},
                                    {"scheme", SourceKind::scheme},
                                    {"query", SourceKind::query},
                                    {"cookie", SourceKind::cookie},
                                    {"protocol", SourceKind::protocol}};

// One argument of apikey_from.
char* parse_source(ngx_conf_t* cf, const ngx_str_t& text, Source& source) noexcept {
  const std::string_view all = view(text);
  source.variable = NGX_ERROR;
  if (all == "bearer" || all == "basic") {
    source.kind = all == "bearer" ? SourceKind::bearer : SourceKind::basic;
    source.name = to_ngx_str(all == "bearer" ? kBearer : kBasic);
    return NGX_CONF_OK;
  }
  if (all.starts_with('$')) {
    return parse_variable_source(cf, text, source);
  }
  const std::size_t colon = all.find(':');
  for (const KindName& each : kNamedKinds) {
    if (colon != std::string_view::npos && all.substr(0, colon) == each.word) {
      source.kind = each.kind;
      source.name = copy_to_pool(cf->pool, all.substr(colon + 1));
      return check_name(cf, text, source);
    }
  }
  return refuse_source(cf, text,
                       "header:<name>, scheme:<name>, bearer, basic, query:<name>, cookie:<name>, protocol:<prefix> or "
                       "$<variable>");
}

// Names of protocols are compared as they stand (RFC 6455), all others ignoring case.
bool is_same_source(const Source& a, const Source& b) noexcept {
  if (a.kind != b.kind) {
    return false;
  }
  return a.kind == SourceKind::protocol ? view(a.name) == view(b.name)
                                        : is_same_ignoring_case(view(a.name), view(b.name));
}

bool passes_invalid_headers(const ngx_http_core_srv_conf_t& server) noexcept { return !server.ignore_invalid_headers; }

bool passes_underscores(const ngx_http_core_srv_conf_t& server) noexcept {
  return server.underscores_in_headers != 0 || passes_invalid_headers(server);
}

// Whether `passes` is true of one of the servers whose settings may be in force when nginx reads the head of a request
// to `server`: its own, and those of the default servers of what it listens on.
bool passes_somewhere(ngx_conf_t* cf, const ngx_http_core_srv_conf_t* server,
                      bool (*passes)(const ngx_http_core_srv_conf_t&) noexcept) noexcept {
  if (passes(*server)) {
    return true;
  }
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  if (core.ports == nullptr) {
    return false;
  }
  for (const auto& port : elements<ngx_http_conf_port_t>(core.ports)) {
    for (const auto& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
      const auto servers = elements<ngx_http_core_srv_conf_t*>(address.servers);
      if (std::find(servers.begin(), servers.end(), server) != servers.end() && passes(*address.default_server)) {
        return true;
      }
    }
  }
  return false;
}

// RETURNS: NGX_OK, or NGX_ERROR for a header that nginx never lets through.
ngx_int_t check_dropped_header(ngx_conf_t* cf, const DroppedHeader& header) noexcept {
  const bool has_underscore_only =
      view(header.name).find_first_not_of(kPassedWithUnderscores) == std::string_view::npos;
  const char* setting = has_underscore_only ? "underscores_in_headers on" : "ignore_invalid_headers off";
  if (passes_somewhere(cf, header.server, has_underscore_only ? passes_underscores : passes_invalid_headers)) {
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "apikey_from: \"header:%V\" in \"%V\": nginx passes a header of such a name only where %s is "
                       "in force when it reads the request, here or in the default server of this listen; other "
                       "proxies drop it too: letters, digits and \"-\" pass everywhere",
                       &header.name, &header.location, setting);
    return NGX_OK;
  }
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "apikey_from: \"header:%V\" in \"%V\" is never seen, nginx drops headers of such names; write %s "
                     "in this server, or take a name of letters, digits and \"-\"",
                     &header.name, &header.location, setting);
  return NGX_ERROR;
}

}  // namespace

char* set_from(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  if (location.sources != unset_array()) {
    return duplicate();
  }
  location.sources = ngx_array_create(cf->pool, 4, sizeof(Source));
  if (location.sources == nullptr) {
    return conf_error();
  }
  for (const ngx_str_t& text : arguments(cf)) {
    Source parsed{};
    if (parse_source(cf, text, parsed) != NGX_CONF_OK) {
      return conf_error();
    }
    for (const Source& other : elements<Source>(location.sources)) {
      if (is_same_source(parsed, other)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_from: \"%V\" stands twice in the list, remove one", &text);
        return conf_error();
      }
    }
    auto* source = push_to<Source>(location.sources);
    if (source == nullptr) {
      return conf_error();
    }
    *source = parsed;
  }
  return NGX_CONF_OK;
}

bool note_dropped_headers(ngx_conf_t* cf, MainConf& main, const LocConf& conf) noexcept {
  const auto* server =
      static_cast<ngx_http_core_srv_conf_t*>(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
  for (const Source& source : elements<Source>(conf.sources)) {
    const auto known = elements<DroppedHeader>(main.dropped_headers);
    const bool is_new = std::none_of(known.begin(), known.end(), [&](const DroppedHeader& each) {
      return each.server == server && view(each.name) == view(source.name);
    });
    if (source.kind != SourceKind::header || !is_new ||
        view(source.name).find_first_not_of(kPassed) == std::string_view::npos) {
      continue;
    }
    auto* place = push_to<DroppedHeader>(&main.dropped_headers);
    if (place == nullptr) {
      return false;
    }
    *place = {server, source.name, conf.location_name};
  }
  return true;
}

ngx_int_t check_dropped_headers(ngx_conf_t* cf, const MainConf& main) noexcept {
  for (const DroppedHeader& header : elements<DroppedHeader>(main.dropped_headers)) {
    if (check_dropped_header(cf, header) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace apikey::nginx
