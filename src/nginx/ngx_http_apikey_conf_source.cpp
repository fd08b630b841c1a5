// The directive apikey_from: in which places of a request a key is looked for, and in which order.
// Called by nginx while it reads the configuration.
// Names are checked here, so that nothing on the request path has to: header names are tokens in lower case.
#include "ngx_http_apikey_conf.hpp"

namespace apikey::nginx {
namespace {

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

// One argument of apikey_from. The name becomes a copy, as it is lower-cased in place.
char* parse_source(ngx_conf_t* cf, const ngx_str_t& text, Source& source) noexcept {
  const std::string_view all = view(text);
  source.variable = NGX_ERROR;
  if (all == "bearer" || all == "basic") {
    source.kind = all == "bearer" ? SourceKind::bearer : SourceKind::basic;
    return NGX_CONF_OK;
  }
  if (all.starts_with('$')) {
    source.kind = SourceKind::variable;
    ngx_str_t name{text.len - 1, text.data + 1};
    if (name.len == 0) {
      return refuse_source(cf, text, "$<variable>");
    }
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
  const std::size_t colon = all.find(':');
  const std::string_view kind = all.substr(0, colon);
  if (colon == std::string_view::npos || (kind != "header" && kind != "query" && kind != "cookie")) {
    return refuse_source(cf, text, "header:<name>, bearer, basic, query:<name>, cookie:<name> or $<variable>");
  }
  source.name = copy_to_pool(cf->pool, all.substr(colon + 1));
  if (kind == "header") {
    source.kind = SourceKind::header;
    return parse_header_source(cf, text, source);
  }
  source.kind = kind == "query" ? SourceKind::query : SourceKind::cookie;
  if (kind == "query" && !is_argument_name(view(source.name))) {
    return refuse_source(cf, text, "query:<name> with the name of an argument, such as query:api_key");
  }
  if (kind == "cookie" && !is_token(view(source.name))) {
    return refuse_source(cf, text, "cookie:<name> with the name of a cookie, such as cookie:api_key");
  }
  return NGX_CONF_OK;
}

bool is_same_source(const Source& a, const Source& b) noexcept {
  return a.kind == b.kind && view(a.name) == view(b.name);
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
    for (const Source& other : std::span(static_cast<Source*>(location.sources->elts), location.sources->nelts)) {
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

}  // namespace apikey::nginx
