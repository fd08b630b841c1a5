// Creation and merging of what the configuration says, and what can only be checked when all of it is read.
// Called by nginx while it configures; the directives themselves are in the other ngx_http_apikey_conf_*.cpp.
// Runs in the master, under `nginx -t` too: it changes nothing that runs.
#include <algorithm>
#include <array>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_content.hpp"
#include "ngx_http_apikey_policies.hpp"
#include "ngx_http_apikey_runtime.hpp"
#include "ngx_http_apikey_sockets.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kDefaultEnvironments[] = {"live"};
constexpr std::string_view kOwnScheme = "ApiKey";
constexpr std::size_t kNamedInWarning = 10;

ngx_http_core_loc_conf_t& core_loc_conf(ngx_conf_t* cf) noexcept {
  return *static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
}

ngx_http_core_srv_conf_t& core_srv_conf(ngx_conf_t* cf) noexcept {
  return *static_cast<ngx_http_core_srv_conf_t*>(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
}

// Hash states made from a pepper are as good as the pepper.
void wipe_methods(void* methods) noexcept {
  ngx_explicit_memzero(methods, kMaxConfiguredMethods * sizeof(DigestMethod));
}

DigestMethod* make_methods(ngx_pool_t* pool) noexcept {
  ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, 0);
  void* memory = ngx_pmemalign(pool, kMaxConfiguredMethods * sizeof(DigestMethod), alignof(DigestMethod));
  if (cleanup == nullptr || memory == nullptr) {
    return nullptr;
  }
  auto* methods = static_cast<DigestMethod*>(memory);
  for (std::size_t i = 0; i < kMaxConfiguredMethods; ++i) {
    ::new (methods + i) DigestMethod();
  }
  cleanup->handler = wipe_methods;
  cleanup->data = methods;
  return methods;
}

// A header of our own, and the scheme that our challenge asks for.
ngx_array_t* make_default_sources(ngx_pool_t* pool) noexcept {
  ngx_array_t* sources = ngx_array_create(pool, 2, sizeof(Source));
  auto* header = sources == nullptr ? nullptr : push_to<Source>(sources);
  auto* scheme = header == nullptr ? nullptr : push_to<Source>(sources);
  if (scheme == nullptr) {
    return nullptr;
  }
  *header = {SourceKind::header, to_ngx_str("x-api-key"), NGX_ERROR};
  *scheme = {SourceKind::scheme, to_ngx_str(kOwnScheme), NGX_ERROR};
  return sources;
}

// A line of scopes, or `any`, replaces all that the outer level says.
void merge_scopes(LocConf& conf, const LocConf& outer) noexcept {
  if (conf.any_scope == NGX_CONF_UNSET && conf.scope_lines == unset_array()) {
    conf.any_scope = outer.any_scope;
    conf.scope_lines = outer.scope_lines;
  }
  if (conf.any_scope == NGX_CONF_UNSET) {
    conf.any_scope = 0;
  }
  if (conf.scope_lines == unset_array()) {
    conf.scope_lines = nullptr;
  }
}

void merge_environments(LocConf& conf, const LocConf& outer) noexcept {
  if (conf.any_environment == NGX_CONF_UNSET && conf.environments == unset_array()) {
    conf.any_environment = outer.any_environment;
    conf.environments = outer.environments;
  }
  if (conf.any_environment == NGX_CONF_UNSET) {
    conf.any_environment = 0;
  }
  if (conf.environments == unset_array()) {
    conf.environments = nullptr;
  }
}

void merge_values(LocConf& conf, const LocConf& outer, ngx_array_t* default_sources) noexcept {
  if (conf.is_on == NGX_CONF_UNSET) {
    conf.is_on = outer.is_on == NGX_CONF_UNSET ? 0 : outer.is_on;
    conf.is_optional = outer.is_optional;
    conf.realm = outer.realm;
  }
  ngx_conf_merge_str_value(conf.store_name, outer.store_name, "");
  ngx_conf_merge_ptr_value(conf.sources, outer.sources, default_sources);
  merge_scopes(conf, outer);
  merge_environments(conf, outer);
  ngx_conf_merge_uint_value(conf.format, outer.format, static_cast<ngx_uint_t>(Format::strict));
  merge_hiding(conf, outer);
  ngx_conf_merge_uint_value(conf.preflight, outer.preflight, static_cast<ngx_uint_t>(Preflight::allow));
  ngx_conf_merge_uint_value(conf.error_body, outer.error_body, static_cast<ngx_uint_t>(ErrorBody::problem));
  ngx_conf_merge_uint_value(conf.error_detail, outer.error_detail, static_cast<ngx_uint_t>(ErrorDetail::generic));
  ngx_conf_merge_uint_value(conf.log_level, outer.log_level, NGX_LOG_INFO);
  merge_limits(conf, outer);
  ngx_conf_merge_uint_value(conf.ratelimit_headers, outer.ratelimit_headers,
                            static_cast<ngx_uint_t>(RatelimitHeaders::x));
  merge_costs(conf, outer);
}

// An `if` or limit_except inside of a location answers as the location does.
void merge_content(ngx_http_core_loc_conf_t& core, LocConf& conf, const LocConf& outer) noexcept {
  if (core.noname && conf.content == nullptr && core.handler == nullptr) {
    conf.content = outer.content;
    core.handler = outer.content;
    conf.question = outer.question;
    conf.verify_status = outer.verify_status;
  }
  conf.is_content = conf.content == on_verify || conf.content == on_whoami;
}

bool name_location(ngx_conf_t* cf, const ngx_http_core_loc_conf_t& core, LocConf& conf) noexcept {
  if (core.name.len != 0) {
    conf.location_name = core.name;
    return true;
  }
  const ngx_str_t& server = core_srv_conf(cf).server_name;
  u_char* text = static_cast<u_char*>(ngx_pnalloc(cf->pool, sizeof("server ") + server.len));
  if (text == nullptr) {
    return false;
  }
  conf.location_name = {static_cast<std::size_t>(ngx_sprintf(text, "server %V", &server) - text), text};
  return true;
}

char* resolve_store(ngx_conf_t* cf, const MainConf& main, LocConf& conf) noexcept {
  conf.store = find_store(main, view(conf.store_name));
  if (conf.store == nullptr && conf.store_name.len != 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_use: there is no store \"%V\" for \"%V\", write apikey_store <path> name=%V in http",
                       &conf.store_name, &conf.location_name, &conf.store_name);
    return conf_error();
  }
  if (conf.store != nullptr || !conf.is_on) {
    return NGX_CONF_OK;
  }
  if (main.stores.nelts == 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey: \"%V\" asks for keys, but there is no apikey_store; write one in http, such as "
                       "apikey_store /var/lib/apikey/keys.mdb",
                       &conf.location_name);
    return conf_error();
  }
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "apikey: \"%V\" does not say which of the %ui stores it means, write apikey_use <name>",
                     &conf.location_name, main.stores.nelts);
  return conf_error();
}

// Places outside of Authorization: HTTP has no challenge of their own for them.
bool is_place_of_its_own(SourceKind kind) noexcept {
  return kind != SourceKind::scheme && kind != SourceKind::bearer && kind != SourceKind::basic;
}

// One `<scheme> realm="…"` for each scheme of Authorization that is a source, in their order, and ApiKey for all places
// outside of it. Basic only where there is nothing else to ask for, because browsers answer it with a dialog. Bearer
// stands last: parameters such as error= are added behind it.
bool make_challenge(ngx_pool_t* pool, LocConf& conf) noexcept {
  const auto all = elements<Source>(conf.sources);
  std::size_t size = 0;
  bool has_place = false;
  bool has_own_scheme = false;
  for (const Source& source : all) {
    size += sizeof(" realm=\"\", ") + std::max(source.name.len, kOwnScheme.size()) + conf.realm.len;
    has_place = has_place || is_place_of_its_own(source.kind);
    has_own_scheme =
        has_own_scheme || (source.kind == SourceKind::scheme && is_same_ignoring_case(view(source.name), kOwnScheme));
  }
  auto* const text = static_cast<u_char*>(ngx_pnalloc(pool, size));
  if (text == nullptr) {
    return false;
  }
  u_char* end = text;
  const auto add = [&](const ngx_str_t& scheme) {
    end = ngx_sprintf(end, "%s%V realm=\"%V\"", end == text ? "" : ", ", &scheme, &conf.realm);
  };
  const auto add_all = [&](SourceKind kind) {
    for (const Source& source : all) {
      if (source.kind == kind) {
        add(source.name);
      }
    }
  };
  if (has_place && !has_own_scheme) {
    const ngx_str_t own = to_ngx_str(kOwnScheme);
    add(own);
  }
  add_all(SourceKind::scheme);
  const u_char* const before_bearer = end;
  add_all(SourceKind::bearer);
  conf.accepts_bearer = end != before_bearer;
  if (end == text) {
    add_all(SourceKind::basic);
  }
  conf.challenge = {static_cast<std::size_t>(end - text), text};
  return true;
}

bool make_policy(ngx_conf_t* cf, LocConf& conf) noexcept {
  auto* policy = pool_new<LocationPolicy>(cf->pool);
  if (policy == nullptr) {
    return false;
  }
  policy->is_optional = conf.is_optional == 1;
  policy->allows_on_error = conf.store->allows_on_error;
  policy->allows_any_scope = conf.any_scope == 1;
  policy->allows_any_environment = conf.any_environment == 1;
  policy->environments = kDefaultEnvironments;
  if (conf.environments != nullptr) {
    policy->environments = {static_cast<std::string_view*>(conf.environments->elts), conf.environments->nelts};
  }
  if (conf.scope_lines != nullptr) {
    policy->scope_lines = {static_cast<ScopeLine*>(conf.scope_lines->elts), conf.scope_lines->nelts};
  }
  conf.policy = policy;
  return make_limit_policy(cf, conf, *policy) == NGX_CONF_OK;
}

bool writes_debug(const ngx_log_t* log) noexcept {
#if (NGX_DEBUG)
  for (; log != nullptr; log = log->next) {
    if ((log->log_level & NGX_LOG_DEBUG_ALL) != 0) {
      return true;
    }
  }
#else
  static_cast<void>(log);
#endif
  return false;
}

// Remembers what finish_conf() warns of. nginx logs headers to the server's log, before it knows the location.
bool note_location(ngx_conf_t* cf, MainConf& main, const ngx_http_core_loc_conf_t& core, LocConf& conf) noexcept {
  main.is_used = true;
  const auto* server =
      static_cast<ngx_http_core_loc_conf_t*>(core_srv_conf(cf).ctx->loc_conf[ngx_http_core_module.ctx_index]);
  conf.meets_debug_log = writes_debug(core.error_log) || writes_debug(server->error_log);
  main.meets_debug_log = main.meets_debug_log || conf.meets_debug_log;

  // Not where it is meant, where a key only asks about itself, where the outer location is named already, and where no
  // request gets to because every one has a location.
  const bool is_unreachable = &core == server && core.locations != nullptr;
  conf.loc_confs = core.loc_conf;
  conf.server = &core_srv_conf(cf);
  conf.is_place = !core.noname && !is_unreachable;
  auto** location = push_to<LocConf*>(&main.locations);
  if (location == nullptr) {
    return false;
  }
  *location = &conf;
  if (conf.any_scope == 1 || conf.scope_lines != nullptr || conf.content == on_whoami || !conf.is_place) {
    return true;
  }
  auto** place = push_to<LocConf*>(&main.unscoped);
  if (place != nullptr) {
    *place = &conf;
  }
  return place != nullptr;
}

void warn_of_unscoped(ngx_conf_t* cf, const MainConf& main) noexcept {
  u_char list[1024];
  u_char* end = list;
  auto* const* locations = static_cast<LocConf**>(main.unscoped.elts);
  for (ngx_uint_t i = 0; i < main.unscoped.nelts && i < kNamedInWarning; ++i) {
    end = ngx_slprintf(end, list + sizeof(list), "%s\"%V\"", i == 0 ? "" : ", ", &locations[i]->location_name);
  }
  if (main.unscoped.nelts > kNamedInWarning) {
    end = ngx_slprintf(end, list + sizeof(list), " and %ui more", main.unscoped.nelts - kNamedInWarning);
  }
  ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                     "apikey: every valid key may use %ui location(s) that have no apikey_scope: %*s; write "
                     "apikey_scope <scope>, or apikey_scope any to say that it is meant",
                     main.unscoped.nelts, static_cast<std::size_t>(end - list), list);
}

}  // namespace

void* create_main_conf(ngx_conf_t* cf) noexcept {
  auto* main = pool_new<MainConf>(cf->pool);
  if (main == nullptr || !init_array<StoreConf*>(main->stores, cf->pool) ||
      !init_array<LocConf*>(main->locations, cf->pool) || !init_array<LocConf*>(main->unscoped, cf->pool) ||
      !init_array<LimitConf>(main->named_limits, cf->pool) || !init_array<HidingLocation>(main->hiding, cf->pool) ||
      !init_array<HiddenVariable*>(main->hidden_variables, cf->pool) ||
      !init_array<DroppedHeader>(main->dropped_headers, cf->pool) ||
      !init_array<std::string_view>(main->settled_measures, cf->pool) ||
      !init_array<ngx_http_core_srv_conf_t*>(main->answering, cf->pool) ||
      !init_array<ngx_str_t>(main->own_sockets, cf->pool) || !init_array<PolicySite>(main->sites, cf->pool)) {
    return nullptr;
  }
  main->methods = make_methods(cf->pool);
  main->method_count = 1;
  main->default_sources = make_default_sources(cf->pool);
  return main->methods == nullptr || main->default_sources == nullptr ? nullptr : main;
}

char* init_main_conf(ngx_conf_t* cf, void* conf) noexcept {
  const auto& main = *static_cast<MainConf*>(conf);
  if (main.stores.nelts != 0 && !DigestMethod::self_test().ok()) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_store: this machine's libcrypto computes SHA-256 differently through its two "
                       "interfaces, no key can be decided; build the module against the libcrypto that nginx loads");
    return conf_error();
  }
  if (const Status status = check_lmdb(); main.stores.nelts != 0 && !status.ok()) {
    std::array<char, 256> buffer;
    const ngx_str_t sentence = to_ngx_str(describe(status, buffer));
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_store: %V", &sentence);
    return conf_error();
  }
  return NGX_CONF_OK;
}

void* create_srv_conf(ngx_conf_t* cf) noexcept {
  auto* conf = pool_new<SrvConf>(cf->pool);
  const bool is_made = conf != nullptr && init_array<LocConf*>(conf->hidden, cf->pool) &&
                       init_array<std::string_view>(conf->argument_names, cf->pool);
  return is_made ? conf : nullptr;
}

void* create_loc_conf(ngx_conf_t* cf) noexcept {
  auto* conf = pool_new<LocConf>(cf->pool);
  if (conf == nullptr) {
    return nullptr;
  }
  note_block(cf, *conf);
  conf->is_on = NGX_CONF_UNSET;
  conf->sources = unset_array();
  conf->format = NGX_CONF_UNSET_UINT;
  conf->scope_lines = unset_array();
  conf->any_scope = NGX_CONF_UNSET;
  conf->environments = unset_array();
  conf->any_environment = NGX_CONF_UNSET;
  conf->hides = NGX_CONF_UNSET;
  conf->keeps_redirects = NGX_CONF_UNSET;
  conf->preflight = NGX_CONF_UNSET_UINT;
  conf->error_body = NGX_CONF_UNSET_UINT;
  conf->error_detail = NGX_CONF_UNSET_UINT;
  conf->log_level = NGX_CONF_UNSET_UINT;
  conf->ratelimit_headers = NGX_CONF_UNSET_UINT;
  conf->limits = unset_array();
  conf->required_limits = unset_array();
  conf->concurrency = unset_array();
  conf->has_fail_limit = NGX_CONF_UNSET;
  conf->dry_run = NGX_CONF_UNSET_UINT;
  conf->cost_lines = unset_array();
  conf->refund_statuses = unset_array();
  return conf;
}

char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept {
  auto& main = *static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  auto& outer = *static_cast<LocConf*>(parent);
  auto& conf = *static_cast<LocConf*>(child);
  ngx_http_core_loc_conf_t& core = core_loc_conf(cf);

  if (outer.block.outer == nullptr) {
    place_limits(cf, outer);  // http itself is nobody's inner block
  }
  place_limits(cf, conf);
  merge_values(conf, outer, main.default_sources);
  merge_content(core, conf, outer);
  if (conf.content != nullptr && !note_answering(cf, main)) {
    return conf_error();
  }
  if (!name_location(cf, core, conf) || resolve_store(cf, main, conf) != NGX_CONF_OK ||
      !note_policy_place(cf, main, conf)) {
    return conf_error();
  }
  if (!conf.is_on && conf.is_content) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "%s: \"%V\" answers for a key but asks for none, write apikey <realm> in it",
                       conf.content == on_verify ? "apikey_verify" : "apikey_whoami", &conf.location_name);
    return conf_error();
  }
  if (!conf.is_on) {
    return NGX_CONF_OK;
  }
  const bool is_done = make_challenge(cf->pool, conf) && make_policy(cf, conf) && note_location(cf, main, core, conf) &&
                       note_hiding(cf, main, conf) && note_dropped_headers(cf, main, conf);
  return is_done ? NGX_CONF_OK : conf_error();
}

ngx_int_t finish_conf(ngx_conf_t* cf) noexcept {
  auto& main = *static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  // A store needs the zone too: its snapshot is adopted whether or not a location asks for keys yet.
  if (main.zone == nullptr && (main.is_used || main.has_metrics || main.stores.nelts != 0)) {
    ngx_str_t name = to_ngx_str(kDefaultZoneName);
    main.zone = add_zone(cf, &name, kDefaultZoneSize);
    if (main.zone == nullptr) {
      return NGX_ERROR;
    }
  }
  if (finish_hiding(cf, main) != NGX_OK || finish_measures(cf, main) != NGX_OK || check_questions(cf, main) != NGX_OK ||
      !find_own_sockets(cf, main) || check_dropped_headers(cf, main) != NGX_OK ||
      (ngx_test_config == 0 && !gather_policies(cf, main))) {
    return NGX_ERROR;
  }
  if (main.zone != nullptr && ngx_test_config != 0 && ngx_quiet_mode == 0) {
    // nginx shows a test's warnings on the terminal, but no notices.
    const ngx_str_t directory = choose_runtime_dir(cf->pool, main);
    ngx_log_stderr(0, "[notice] apikey_zone \"%V\": node memory will lie in %V", &main.zone->shm.name, &directory);
  }
  warn_of_files(cf, main);
  warn_of_returns(cf, main);
  warn_of_barred(cf, main);
  if (main.unscoped.nelts != 0) {
    warn_of_unscoped(cf, main);
  }
  if (main.meets_debug_log) {
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "apikey: an error_log at debug level meets apikey; nginx writes every header to it, keys "
                       "included, before any module runs: do not keep such a log");
  }
  return NGX_OK;
}

}  // namespace apikey::nginx
