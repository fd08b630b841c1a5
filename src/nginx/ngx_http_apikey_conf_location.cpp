// The directives that may stand in a location: whether, for whom, and the content handlers. (apikey_from:
// _conf_source.) Called by nginx while it reads the configuration; merging is in ngx_http_apikey_conf.cpp. Each refusal
// is a sentence: the directive, the value, what to write instead.
#include "apikey/key_form.hpp"
#include "apikey/scope_set.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_content.hpp"
#include "ngx_http_apikey_metrics.hpp"
#include "ngx_http_apikey_usage.hpp"

namespace apikey::nginx {
namespace {

// Escapes a realm for a quoted-string. RETURNS: false when it holds a control character or there is no memory.
bool quote_realm(ngx_pool_t* pool, std::string_view realm, ngx_str_t& quoted) noexcept {
  quoted.data = static_cast<u_char*>(ngx_pnalloc(pool, 2 * realm.size()));
  if (quoted.data == nullptr) {
    return false;
  }
  u_char* p = quoted.data;
  for (const char c : realm) {
    const auto byte = static_cast<u_char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      return false;
    }
    if (c == '"' || c == '\\') {
      *p++ = '\\';
    }
    *p++ = byte;
  }
  quoted.len = static_cast<std::size_t>(p - quoted.data);
  return true;
}

// The methods of a scope line; all when it does not say.
char* parse_scope_methods(ngx_conf_t* cf, const ngx_str_t& text, ScopeLine& line) noexcept {
  if (line.methods != ScopeLine{}.methods) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_scope: \"%V\" is the second methods= of the line, write one list",
                       &text);
    return conf_error();
  }
  MethodSet methods = 0;
  if (!parse_methods(view(text).substr(sizeof("methods=") - 1), methods).ok() || methods == 0) {
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "apikey_scope: \"%V\" is not a list of methods, write upper-case names with commas between them, "
        "such as methods=GET,POST",
        &text);
    return conf_error();
  }
  line.methods = methods;
  return NGX_CONF_OK;
}

char* parse_scope_line(ngx_conf_t* cf, ScopeLine& line) noexcept {
  const auto args = arguments(cf);
  auto* scopes = static_cast<std::string_view*>(ngx_palloc(cf->pool, args.size() * sizeof(std::string_view)));
  if (scopes == nullptr) {
    return conf_error();
  }
  std::size_t count = 0;
  for (const ngx_str_t& text : args) {
    if (view(text).starts_with("methods=")) {
      if (parse_scope_methods(cf, text, line) != NGX_CONF_OK) {
        return conf_error();
      }
      continue;
    }
    if (view(text) == "any") {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "apikey_scope: \"any\" stands alone, as it asks for no scope; remove it or the others");
      return conf_error();
    }
    if (view(text).starts_with("method=") || view(text).starts_with("methods:")) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_scope: \"%V\" is not a scope; did you mean methods=%s?", &text,
                         text.data + view(text).find_first_of("=:") + 1);
      return conf_error();
    }
    if (!is_valid_scope(view(text))) {
      ngx_conf_log_error(
          NGX_LOG_EMERG, cf, 0,
          "apikey_scope: \"%V\" is not a scope, write one such as orders:read (segments of A-Z, a-z, 0-9, "
          "_, ., / and - joined by colons), or \"any\" alone",
          &text);
      return conf_error();
    }
    ::new (scopes + count++) std::string_view(view(text));
  }
  if (count == 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_scope: \"%V\" names no scope, write apikey_scope <scope> methods=<list>", &args[0]);
    return conf_error();
  }
  line.scopes = {scopes, count};
  return NGX_CONF_OK;
}

}  // namespace

char* set_content(ngx_conf_t* cf, ngx_command_t* cmd, LocConf& location, ngx_http_handler_pt handler) noexcept {
  if (location.content == handler) {
    return duplicate();
  }
  auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
  if (core->handler != nullptr) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "%V: another directive answers in location \"%V\" already, give %V a location of its own",
                       &cmd->name, &core->name, &cmd->name);
    return conf_error();
  }
  core->handler = handler;
  location.content = handler;
  return NGX_CONF_OK;
}

char* set_apikey(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  if (location.is_on != NGX_CONF_UNSET) {
    return duplicate();
  }
  const bool is_off = view(args[0]) == "off";
  if (args.size() == 2 && (is_off || view(args[1]) != "optional")) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey: \"%V %V\" is not known, write apikey <realm>, apikey <realm> optional, or apikey off",
                       &args[0], &args[1]);
    return conf_error();
  }
  location.is_on = is_off ? 0 : 1;
  location.is_optional = args.size() == 2 ? 1 : 0;
  if (is_off) {
    return NGX_CONF_OK;
  }
  if (args[0].len == 0 || view(args[0]).find('$') != std::string_view::npos) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey: \"%V\" is not a realm, write a text without variables, such as apikey \"Orders API\"",
                       &args[0]);
    return conf_error();
  }
  for (const std::string_view word : {"on", "yes", "true", "enable", "enabled"}) {
    if (view(args[0]) == word) {
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey: \"%V\" is the realm that clients are shown; keys are asked for, but a name says "
                         "more, such as apikey \"orders\"",
                         &args[0]);
    }
  }
  if (!quote_realm(cf->pool, view(args[0]), location.realm)) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey: \"%V\" is not a realm, write it without control characters",
                       &args[0]);
    return conf_error();
  }
  return NGX_CONF_OK;
}

char* set_scope(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  const bool is_any = args.size() == 1 && view(args[0]) == "any";
  if (location.any_scope == 1 || (is_any && location.scope_lines != unset_array())) {
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "apikey_scope: \"%V\" meets another apikey_scope of the same level, \"any\" must be the only one", &args[0]);
    return conf_error();
  }
  if (is_any) {
    location.any_scope = 1;
    return NGX_CONF_OK;
  }
  ScopeLine parsed;
  if (parse_scope_line(cf, parsed) != NGX_CONF_OK) {
    return conf_error();
  }
  if (location.scope_lines == unset_array()) {
    location.scope_lines = ngx_array_create(cf->pool, 4, sizeof(ScopeLine));
  }
  auto* line = location.scope_lines == nullptr ? nullptr : push_to<ScopeLine>(location.scope_lines);
  if (line == nullptr) {
    return conf_error();
  }
  *line = parsed;
  return NGX_CONF_OK;
}

char* set_environment(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  if (location.any_environment != NGX_CONF_UNSET || location.environments != unset_array()) {
    return duplicate();
  }
  if (args.size() == 1 && view(args[0]) == "any") {
    location.any_environment = 1;
    return NGX_CONF_OK;
  }
  location.environments = ngx_array_create(cf->pool, 4, sizeof(std::string_view));
  if (location.environments == nullptr) {
    return conf_error();
  }
  for (const ngx_str_t& text : args) {
    if (view(text) == "any" || !is_valid_env(view(text))) {
      ngx_conf_log_error(
          NGX_LOG_EMERG, cf, 0,
          "apikey_environment: \"%V\" is not an environment, write names of 1 to 16 characters of a-z and "
          "0-9, such as live, or \"any\" alone",
          &text);
      return conf_error();
    }
    auto* environment = push_to<std::string_view>(location.environments);
    if (environment == nullptr) {
      return conf_error();
    }
    *environment = view(text);
  }
  return NGX_CONF_OK;
}

char* set_choice(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  auto& field = *static_cast<ngx_uint_t*>(static_cast<void*>(static_cast<char*>(conf) + cmd->offset));
  const ngx_str_t& value = arguments(cf)[0];
  if (field != NGX_CONF_UNSET_UINT) {
    return duplicate();
  }
  const auto* first = static_cast<const Choice*>(cmd->post);
  u_char list[128];
  u_char* end = list;
  for (const Choice* choice = first; !choice->word.empty(); ++choice) {
    if (view(value) == choice->word) {
      field = choice->value;
      return NGX_CONF_OK;
    }
    const ngx_str_t word = to_ngx_str(choice->word);
    const char* separator = choice[1].word.empty() ? " or " : ", ";
    end = ngx_slprintf(end, list + sizeof(list), "%s%V", choice == first ? "" : separator, &word);
  }
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%V: \"%V\" is not known, write %*s", &cmd->name, &value,
                     static_cast<std::size_t>(end - list), list);
  return conf_error();
}

char* set_metrics(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  main->has_metrics = true;
  return set_content(cf, cmd, *static_cast<LocConf*>(conf), on_metrics);
}

char* set_usage(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  main->has_metrics = true;
  return set_content(cf, cmd, *static_cast<LocConf*>(conf), on_usage);
}

char* set_whoami(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  return set_content(cf, cmd, *static_cast<LocConf*>(conf), on_whoami);
}

}  // namespace apikey::nginx
