// nginx's variables of hidden places: found or made, with our getter in front of the one that was there.
// Called in postconfiguration, when other modules have added theirs and nobody has resolved them yet; then for every
// read. What such a variable shows may change once in a request, so none of them is cached.
#include "ngx_http_apikey_pseudonym.hpp"

#include <algorithm>

#include "apikey/siphash.hpp"
#include "ngx_http_apikey_ctx.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kPrefix = "apikey:";
constexpr std::string_view kScheme = "ApiKey ";
constexpr std::string_view kAuthorization = "http_authorization";
constexpr std::string_view kRemoteUser = "remote_user";
constexpr std::string_view kCookies = "http_cookie";
constexpr std::string_view kProtocols = "http_sec_websocket_protocol";

std::span<HiddenVariable* const> all_of(const MainConf& main) noexcept {
  return {static_cast<HiddenVariable**>(main.hidden_variables.elts), main.hidden_variables.nelts};
}

const HiddenValue* find_hidden(const RequestCtx* ctx, const HiddenVariable* variable) noexcept {
  const HiddenValue* each = ctx == nullptr ? nullptr : ctx->hidden;
  while (each != nullptr && each->variable != variable) {
    each = each->next;
  }
  return each;
}

bool show(ngx_http_request_t* r, ngx_http_variable_value_t* v, const HiddenValue& hidden) noexcept {
  ngx_str_t text = hidden.text;
  if (text.len == 0) {
    const bool has_scheme = view(hidden.variable->name) == kAuthorization;
    const PseudonymText pseudonym = pseudonym_text(hidden.pseudonym);
    text.data = static_cast<u_char*>(ngx_pnalloc(r->pool, kScheme.size() + pseudonym.size()));
    if (text.data == nullptr) {
      return false;
    }
    u_char* end = has_scheme ? ngx_cpymem(text.data, kScheme.data(), kScheme.size()) : text.data;
    end = ngx_cpymem(end, pseudonym.data(), pseudonym.size());
    text.len = static_cast<std::size_t>(end - text.data);
  }
  v->data = text.data;
  v->len = static_cast<unsigned>(text.len) & 0x0fffffff;
  v->valid = 1;
  v->not_found = 0;
  return true;
}

ngx_int_t get_hidden_variable(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t data) noexcept {
  const auto* variable = std::bit_cast<const HiddenVariable*>(data);
  v->valid = 0;
  v->not_found = 0;
  const ngx_int_t found = variable->before(r, v, variable->data);
  if (found != NGX_OK) {
    return found;
  }
  const HiddenValue* hidden = v->not_found != 0 ? find_hidden(find_ctx(r), variable) : nullptr;
  if (hidden != nullptr && !show(r, v, *hidden)) {
    return NGX_ERROR;
  }
  v->no_cacheable = 1;
  return NGX_OK;
}

ngx_http_variable_t* find_variable(const ngx_http_core_main_conf_t& core, std::string_view name) noexcept {
  const ngx_array_t& keys = core.variables_keys->keys;
  for (const ngx_hash_key_t& key : elements<ngx_hash_key_t>(keys)) {
    if (view(key.key) == name) {
      return static_cast<ngx_http_variable_t*>(key.value);
    }
  }
  return nullptr;
}

// The getter of the longest prefix that fits, as nginx chooses it; null when there is none.
ngx_http_get_variable_pt prefix_getter(const ngx_http_core_main_conf_t& core, std::string_view name) noexcept {
  const ngx_http_variable_t* longest = nullptr;
  for (const ngx_http_variable_t& each : elements<ngx_http_variable_t>(core.prefix_variables)) {
    if (name.starts_with(view(each.name)) && (longest == nullptr || each.name.len > longest->name.len)) {
      longest = &each;
    }
  }
  return longest == nullptr ? nullptr : longest->get_handler;
}

bool take_over(ngx_conf_t* cf, HiddenVariable& hidden) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  ngx_http_variable_t* variable = find_variable(core, view(hidden.name));
  if (variable == nullptr) {
    variable = ngx_http_add_variable(cf, &hidden.name, NGX_HTTP_VAR_NOCACHEABLE);
    if (variable == nullptr) {
      return false;
    }
  }
  // A weak one gives way to a prefix, in nginx too.
  const bool is_of_prefix = variable->get_handler == nullptr || (variable->flags & NGX_HTTP_VAR_WEAK) != 0;
  ngx_http_get_variable_pt getter = is_of_prefix ? prefix_getter(core, view(hidden.name)) : nullptr;
  hidden.before = getter == nullptr ? variable->get_handler : getter;
  hidden.data = getter == nullptr ? variable->data : std::bit_cast<uintptr_t>(&hidden.name);
  if (hidden.before == nullptr) {
    return false;
  }
  variable->get_handler = get_hidden_variable;
  variable->data = std::bit_cast<uintptr_t>(&hidden);
  variable->flags = (variable->flags | NGX_HTTP_VAR_NOCACHEABLE) & ~ngx_uint_t{NGX_HTTP_VAR_WEAK};
  return true;
}

// `prefix` and `name` are written as nginx writes the name of a variable. RETURNS: null with an error logged, or
// without memory.
const HiddenVariable* get_variable(ngx_conf_t* cf, MainConf& main, std::string_view prefix,
                                   std::string_view name) noexcept {
  ngx_str_t text{prefix.size() + name.size(), nullptr};
  text.data = static_cast<u_char*>(ngx_pnalloc(cf->pool, text.len));
  if (text.data == nullptr) {
    return nullptr;
  }
  const bool is_header = prefix == "http_";
  u_char* end = ngx_cpymem(text.data, prefix.data(), prefix.size());
  std::transform(name.begin(), name.end(), end, [is_header](char c) {
    return is_header && c == '-' ? u_char{'_'} : static_cast<u_char>(ngx_tolower(c));
  });
  for (const HiddenVariable* known : all_of(main)) {
    if (view(known->name) == view(text)) {
      return known;
    }
  }
  auto* hidden = pool_new<HiddenVariable>(cf->pool);
  auto** place = hidden == nullptr ? nullptr : push_to<HiddenVariable*>(&main.hidden_variables);
  if (place == nullptr) {
    return nullptr;
  }
  hidden->name = text;
  *place = hidden;
  return take_over(cf, *hidden) ? hidden : nullptr;
}

bool name_source(ngx_conf_t* cf, MainConf& main, Source& source) noexcept {
  switch (source.kind) {
    case SourceKind::header:
      source.named = get_variable(cf, main, "http_", view(source.name));
      break;
    case SourceKind::scheme:
    case SourceKind::bearer:
      source.named = get_variable(cf, main, {}, kAuthorization);
      break;
    case SourceKind::protocol:
      return get_variable(cf, main, {}, kProtocols) != nullptr;  // it shows what is left of the list
    case SourceKind::basic:
      source.named = get_variable(cf, main, {}, kAuthorization);
      main.hidden_user = get_variable(cf, main, {}, kRemoteUser);
      return source.named != nullptr && main.hidden_user != nullptr;
    case SourceKind::query:
      source.named = get_variable(cf, main, "arg_", view(source.name));
      break;
    case SourceKind::cookie:
      source.named = get_variable(cf, main, "cookie_", view(source.name));
      return source.named != nullptr && get_variable(cf, main, {}, kCookies) != nullptr;
    case SourceKind::variable:
      return source.place == nullptr || name_source(cf, main, *source.place);
  }
  return source.named != nullptr;
}

std::span<ngx_http_variable_t> referred_variables(ngx_conf_t* cf) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  return {static_cast<ngx_http_variable_t*>(core.variables.elts), core.variables.nelts};
}

void warn_of_variable(ngx_conf_t* cf, const ngx_str_t& name) noexcept {
  if (view(name) == kCookies) {
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "apikey_hide: \"$%V\" is read by another directive; where a cookie is a source, it is without "
                       "the key once that is hidden",
                       &name);
    return;
  }
  ngx_conf_log_error(
      NGX_LOG_WARN, cf, 0,
      "apikey_hide: \"$%V\" is read by another directive; once the key is hidden it is \"%sapikey:\" and "
      "16 digits that stand for the key: limits, caches and logs still tell clients apart, a map of "
      "keys needs apikey_hide on before=$<its variable>",
      &name, view(name) == kAuthorization ? "ApiKey " : "");
}

const HiddenVariable* find_by_name(const MainConf& main, std::string_view name) noexcept {
  const auto all = all_of(main);
  const auto found = std::find_if(all.begin(), all.end(), [name](auto* each) { return view(each->name) == name; });
  return found == all.end() ? nullptr : *found;
}

// Whoever keeps such a variable keeps the key itself.
ngx_int_t check_before(ngx_conf_t* cf, const MainConf& main, const LocConf& location) noexcept {
  if (location.before_hiding == nullptr) {
    return NGX_OK;
  }
  for (const ngx_int_t index : elements<ngx_int_t>(location.before_hiding)) {
    const ngx_str_t& name = referred_variables(cf)[static_cast<std::size_t>(index)].name;
    if (find_by_name(main, view(name)) != nullptr) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "apikey_hide: before=$%V would keep the key itself, name the variable of a map that is made "
                         "from it",
                         &name);
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

}  // namespace

Pseudonym pseudonym_of(ngx_http_request_t* r, std::string_view credential) noexcept {
  SipHash hash(node_seed(*main_conf(r)));
  hash.update(std::as_bytes(std::span(credential)));
  return hash.finish();
}

PseudonymText pseudonym_text(Pseudonym pseudonym) noexcept {
  constexpr std::string_view digits = "0123456789abcdef";
  PseudonymText text;
  auto* at = std::copy(kPrefix.begin(), kPrefix.end(), text.data());
  for (int shift = 60; shift >= 0; shift -= 4) {
    *at++ = digits[pseudonym >> shift & 0xf];
  }
  return text;
}

bool remember_hidden(ngx_http_request_t* r, RequestCtx& ctx, const HiddenVariable* variable, Pseudonym pseudonym,
                     ngx_str_t text) noexcept {
  if (variable == nullptr || find_hidden(&ctx, variable) != nullptr) {
    return true;
  }
  auto* hidden = static_cast<HiddenValue*>(ngx_palloc(r->main->pool, sizeof(HiddenValue)));
  if (hidden == nullptr) {
    return false;
  }
  *hidden = {variable, pseudonym, text, ctx.hidden};
  ctx.hidden = hidden;
  return true;
}

ngx_int_t install_hidden_variables(ngx_conf_t* cf, MainConf& main) noexcept {
  const auto hiding = elements<HidingLocation>(main.hiding);
  for (const HidingLocation& each : hiding) {
    for (Source& source : elements<Source>(each.location->sources)) {
      if (source.named == nullptr && !name_source(cf, main, source)) {
        return NGX_ERROR;
      }
    }
  }
  for (const HidingLocation& each : hiding) {
    if (check_before(cf, main, *each.location) != NGX_OK) {
      return NGX_ERROR;
    }
  }
  for (const ngx_http_variable_t& referred : referred_variables(cf)) {
    if (view(referred.name) != kRemoteUser && find_by_name(main, view(referred.name)) != nullptr) {
      warn_of_variable(cf, referred.name);
    }
  }
  return NGX_OK;
}

}  // namespace apikey::nginx
