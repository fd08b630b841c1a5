// The directive apikey_hide; which places of a request its keys are hidden in, for each location and for each port; and
// what `nginx -t` says of directives that read such a place.
// Called by nginx while it configures. What a port hides is the sum of its servers: a request may end before nginx
// knows which of them it is for.
#include <algorithm>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_pseudonym.hpp"

namespace apikey::nginx {
namespace {

std::span<Source> sources(const LocConf& conf) noexcept { return elements<Source>(*conf.sources); }

// The place that holds what this source reads: itself, or the one that a variable names; null for other variables.
const Source* place_of(const Source& source) noexcept {
  return source.kind == SourceKind::variable ? source.place : &source;
}

// Adds a value unless it is there. RETURNS: false without memory.
template <typename T, typename IsSame>
bool add_once(ngx_array_t& array, const T& value, IsSame is_same) noexcept {
  const auto all = elements<T>(array);
  if (std::any_of(all.begin(), all.end(), [&](const T& each) { return is_same(each, value); })) {
    return true;
  }
  T* place = push_to<T>(&array);
  if (place != nullptr) {
    *place = value;
  }
  return place != nullptr;
}

bool is_same_name(std::string_view a, std::string_view b) noexcept { return a == b; }

bool hides_alike(const LocConf* a, const LocConf* b) noexcept {
  return a->sources == b->sources && a->format == b->format;
}

char* parse_before(ngx_conf_t* cf, LocConf& location, std::string_view list, const ngx_str_t& text) noexcept {
  location.before_hiding = ngx_array_create(cf->pool, 2, sizeof(ngx_int_t));
  if (location.before_hiding == nullptr) {
    return conf_error();
  }
  for (bool is_last = false; !is_last;) {
    const std::size_t comma = list.find(',');
    is_last = comma == std::string_view::npos;
    const std::string_view one = list.substr(0, comma);
    list.remove_prefix(is_last ? list.size() : comma + 1);
    if (one.size() < 2 || !one.starts_with('$')) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "apikey_hide: \"%V\" is not a list of variables, write them with commas between them, such as "
                         "before=$client,$tier",
                         &text);
      return conf_error();
    }
    ngx_str_t name = to_ngx_str(one.substr(1));
    auto* index = push_to<ngx_int_t>(location.before_hiding);
    if (index == nullptr) {
      return conf_error();
    }
    *index = ngx_http_get_variable_index(cf, &name);
    if (*index == NGX_ERROR) {
      return conf_error();
    }
  }
  return NGX_CONF_OK;
}

char* parse_parameter(ngx_conf_t* cf, LocConf& location, const ngx_str_t& text) noexcept {
  constexpr std::string_view before = "before=";
  const bool is_before = view(text).starts_with(before);
  if (!is_before && view(text) != "redirects=keep") {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_hide: invalid parameter \"%V\", write before=$<variable> or redirects=keep", &text);
    return conf_error();
  }
  if (is_before ? location.before_hiding != nullptr : location.keeps_redirects == 1) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_hide: duplicate parameter \"%V\"", &text);
    return conf_error();
  }
  if (is_before) {
    return parse_before(cf, location, view(text).substr(before.size()), text);
  }
  location.keeps_redirects = 1;
  return NGX_CONF_OK;
}

// What may stand in the URI, where it is logged with the request line.
bool is_in_line(const Source& source) noexcept {
  const Source* place = place_of(source);
  return place == nullptr || place->kind == SourceKind::query;
}

// The apikey_http_… configuration of a server.
SrvConf& conf_of(const ngx_http_core_srv_conf_t& server) noexcept {
  return *static_cast<SrvConf*>(server.ctx->srv_conf[ngx_http_apikey_module.ctx_index]);
}

bool add_to_server(SrvConf& server, LocConf* location) noexcept {
  const auto all = sources(*location);
  server.takes_from_path = server.takes_from_path || std::any_of(all.begin(), all.end(), [](const Source& source) {
                             return place_of(source) == nullptr;
                           });
  server.takes_from_line = server.takes_from_line || location->takes_from_line == 1;
  if (!add_once(server.hidden, location, hides_alike)) {
    return false;
  }
  for (const std::string_view name : elements<std::string_view>(*location->argument_names)) {
    if (!add_once(server.argument_names, name, is_same_name)) {
      return false;
    }
  }
  return true;
}

bool listens_on(const ngx_http_conf_port_t& port, const ngx_http_core_srv_conf_t* server) noexcept {
  for (const auto& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
    const auto all = elements<ngx_http_core_srv_conf_t*>(address.servers);
    if (std::find(all.begin(), all.end(), server) != all.end()) {
      return true;
    }
  }
  return false;
}

// RETURNS: false without memory.
bool sum_up_port(const ngx_http_conf_port_t& port, const MainConf& main) noexcept {
  for (const HidingLocation& hiding : elements<HidingLocation>(main.hiding)) {
    if (!listens_on(port, hiding.server)) {
      continue;
    }
    for (const auto& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
      for (const auto* server : elements<ngx_http_core_srv_conf_t*>(address.servers)) {
        if (!add_to_server(conf_of(*server), hiding.location)) {
          return false;
        }
      }
    }
  }
  return true;
}

bool has_cache(const ngx_cycle_t& cycle) noexcept {
  const auto paths = elements<ngx_path_t*>(cycle.paths);
  return std::any_of(paths.begin(), paths.end(), [](const ngx_path_t* path) { return path->manager != nullptr; });
}

void warn_of_caches(ngx_conf_t* cf, const MainConf& main) noexcept {
  if (!has_cache(*cf->cycle)) {
    return;
  }
  for (const HidingLocation& hiding : elements<HidingLocation>(main.hiding)) {
    for (const Source& source : sources(*hiding.location)) {
      const Source* place = place_of(source);
      if (place == nullptr || (place->kind != SourceKind::query && place->kind != SourceKind::cookie)) {
        continue;
      }
      ngx_conf_log_error(
          NGX_LOG_WARN, cf, 0,
          "apikey_hide: in \"%V\" a key may come as %s \"%V\", which is gone when nginx computes the key of a cache: "
          "the "
          "default key, as any of $args, $request_uri or $http_cookie alone, no longer tells clients apart; where they "
          "must not share answers write proxy_cache_key $scheme$proxy_host$request_uri$apikey_id",
          &hiding.location->location_name, place->kind == SourceKind::query ? "argument" : "cookie", &place->name);
      return;
    }
  }
}

// Each variable once.
void warn_of_variable_sources(ngx_conf_t* cf, const MainConf& main) noexcept {
  ngx_array_t said;
  if (!init_array<ngx_int_t>(said, cf->pool)) {
    return;
  }
  for (const HidingLocation& hiding : elements<HidingLocation>(main.hiding)) {
    for (const Source& source : sources(*hiding.location)) {
      const auto known = elements<ngx_int_t>(said);
      if (place_of(source) != nullptr || std::find(known.begin(), known.end(), source.variable) != known.end()) {
        continue;
      }
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey_from: \"$%V\" in \"%V\" does not say where in the request the key stands; it is taken "
                         "out of headers, cookies, arguments and logs, but a path goes to the upstream as it is",
                         &source.name, &hiding.location->location_name);
      if (auto* place = push_to<ngx_int_t>(&said)) {
        *place = source.variable;
      }
    }
  }
}

}  // namespace

char* set_hide(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  if (location.hides != NGX_CONF_UNSET) {
    return duplicate();
  }
  if (view(args[0]) != "on" && view(args[0]) != "off") {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_hide: invalid value \"%V\", write apikey_hide on [before=$<variable>,…] "
                       "[redirects=keep], or apikey_hide off",
                       &args[0]);
    return conf_error();
  }
  location.hides = view(args[0]) == "on" ? 1 : 0;
  location.keeps_redirects = 0;
  if (location.hides == 0 && args.size() > 1) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_hide: \"%V\" has no meaning with \"off\", remove it", &args[1]);
    return conf_error();
  }
  for (const ngx_str_t& text : args.subspan(1)) {
    if (parse_parameter(cf, location, text) != NGX_CONF_OK) {
      return conf_error();
    }
  }
  return NGX_CONF_OK;
}

void merge_hiding(LocConf& conf, const LocConf& outer) noexcept {
  if (conf.hides == NGX_CONF_UNSET) {
    conf.hides = outer.hides == NGX_CONF_UNSET ? 1 : outer.hides;
    conf.keeps_redirects = outer.keeps_redirects == NGX_CONF_UNSET ? 0 : outer.keeps_redirects;
    conf.before_hiding = outer.before_hiding;
  }
}

bool find_place(ngx_conf_t* cf, Source& source) noexcept {
  struct Prefix {
    std::string_view text;
    SourceKind kind;
  };
  constexpr Prefix prefixes[] = {
      {"http_", SourceKind::header}, {"arg_", SourceKind::query}, {"cookie_", SourceKind::cookie}};
  const ngx_str_t name = copy_to_pool(cf->pool, view(source.name));
  if (name.data == nullptr) {
    return false;
  }
  ngx_strlow(name.data, name.data, name.len);
  // Whatever else is in these two must stay.
  if (view(name) == "http_cookie" || view(name) == "http_host") {
    return true;
  }
  for (const Prefix& prefix : prefixes) {
    if (!view(name).starts_with(prefix.text) || name.len == prefix.text.size()) {
      continue;
    }
    auto* place = pool_new<Source>(cf->pool);
    if (place == nullptr) {
      return false;
    }
    place->kind = prefix.kind;
    place->name = to_ngx_str(view(name).substr(prefix.text.size()));
    place->variable = NGX_ERROR;
    place->is_any_dash = prefix.kind == SourceKind::header;
    source.place = place;
    source.name = name;
    source.variable = NGX_ERROR;
    source.hash = ngx_hash_key(name.data, name.len);
  }
  return true;
}

bool note_hiding(ngx_conf_t* cf, MainConf& main, LocConf& conf) noexcept {
  conf.argument_names = ngx_array_create(cf->pool, 1, sizeof(std::string_view));
  if (conf.argument_names == nullptr) {
    return false;
  }
  for (const Source& source : sources(conf)) {
    const Source* place = place_of(source);
    if (place != nullptr && place->kind == SourceKind::query &&
        !add_once(*conf.argument_names, view(place->name), is_same_name)) {
      return false;
    }
    conf.takes_from_line = conf.takes_from_line == 1 || is_in_line(source) ? 1 : 0;
  }
  main.cleans_lines = main.cleans_lines || (conf.hides == 1 && conf.takes_from_line == 1);
  if (conf.hides == 0) {
    return true;
  }
  auto* hiding = push_to<HidingLocation>(&main.hiding);
  if (hiding == nullptr) {
    return false;
  }
  *hiding = {&conf,
             static_cast<ngx_http_core_srv_conf_t*>(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module))};
  return true;
}

ngx_int_t finish_hiding(ngx_conf_t* cf, MainConf& main) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  if (core.ports != nullptr) {
    for (const auto& port : elements<ngx_http_conf_port_t>(*core.ports)) {
      if (!sum_up_port(port, main)) {
        return NGX_ERROR;
      }
    }
  }
  if (install_hidden_variables(cf, main) != NGX_OK) {
    return NGX_ERROR;
  }
  warn_of_caches(cf, main);
  warn_of_variable_sources(cf, main);
  return NGX_OK;
}

}  // namespace apikey::nginx
