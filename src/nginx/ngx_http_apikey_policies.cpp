// Gathering what each location asks for. Runs in the master while it configures; decides nothing.
// Must never write a pepper, a path of one, or anything else that is secret.
#include "ngx_http_apikey_policies.hpp"

#include <algorithm>
#include <array>

#include "apikey/policies.hpp"

namespace apikey::nginx {
namespace {

struct MethodName {
  ngx_uint_t nginx;
  MethodSet ours;
};
constexpr std::array<MethodName, 14> kMethods = {{{NGX_HTTP_GET, kMethodGet},
                                                  {NGX_HTTP_HEAD, kMethodHead},
                                                  {NGX_HTTP_POST, kMethodPost},
                                                  {NGX_HTTP_PUT, kMethodPut},
                                                  {NGX_HTTP_DELETE, kMethodDelete},
                                                  {NGX_HTTP_MKCOL, kMethodMkcol},
                                                  {NGX_HTTP_COPY, kMethodCopy},
                                                  {NGX_HTTP_MOVE, kMethodMove},
                                                  {NGX_HTTP_OPTIONS, kMethodOptions},
                                                  {NGX_HTTP_PROPFIND, kMethodPropfind},
                                                  {NGX_HTTP_PROPPATCH, kMethodProppatch},
                                                  {NGX_HTTP_LOCK, kMethodLock},
                                                  {NGX_HTTP_UNLOCK, kMethodUnlock},
                                                  {NGX_HTTP_PATCH, kMethodPatch}}};

bool is_except(const PolicySite& site) noexcept {
  const ngx_http_core_loc_conf_t* outer = site.outer;
  return outer != nullptr && outer->limit_except_loc_conf != nullptr &&
         core_of(outer->limit_except_loc_conf) == site.core;
}

PolicyPlace place_of(const PolicySite& site) noexcept {
  const ngx_http_core_loc_conf_t& core = *site.core;
  if (site.outer == nullptr) {
    return PolicyPlace::server;
  }
  if (core.noname != 0) {
    return is_except(site) ? PolicyPlace::limit_except : PolicyPlace::condition;
  }
  if (core.named != 0) {
    return PolicyPlace::named;
  }
  if (core.exact_match != 0) {
    return PolicyPlace::exact;
  }
#if (NGX_PCRE)
  if (core.regex != nullptr) {
    return site.location->is_caseless ? PolicyPlace::regex_nocase : PolicyPlace::regex;
  }
#endif
  return core.noregex != 0 ? PolicyPlace::first_prefix : PolicyPlace::prefix;
}

std::uint16_t flags_of(const PolicySite& site) noexcept {
  const LocConf& conf = *site.location;
  if (conf.is_on != 1 || conf.policy == nullptr) {
    return 0;
  }
  const LocationPolicy& policy = *conf.policy;
  unsigned flags = kPolicyOn;
  const auto add = [&](bool is_so, PolicyFlag flag) { flags |= is_so ? unsigned{flag} : 0U; };
  add(policy.is_optional, kPolicyOptional);
  add(policy.allows_any_scope, kPolicyAnyScope);
  add(policy.allows_any_environment, kPolicyAnyEnvironment);
  add(site.core->satisfy == NGX_HTTP_SATISFY_ANY, kPolicySatisfyAny);
  add(policy.allows_on_error, kPolicyAllowsOnError);
  add(policy.dry_run == DryRun::limits || policy.dry_run == DryRun::on, kPolicyDryRunLimits);
  add(policy.dry_run == DryRun::scopes || policy.dry_run == DryRun::on, kPolicyDryRunScopes);
  add(conf.is_content, kPolicyOwnContent);
  add(policy.fail_limit.blocks_all, kPolicyBlocksAll);
  add(conf.meets_debug_log, kPolicyDebugLog);
  return static_cast<std::uint16_t>(flags);
}

// As apikey_from is written.
void write_source(PolicyWriter& writer, const Source& source) noexcept {
  std::string_view kind;
  switch (source.kind) {
    case SourceKind::header:
      kind = "header:";
      break;
    case SourceKind::scheme:
      kind = "scheme:";
      break;
    case SourceKind::bearer:
      return writer.text(PolicyTag::source, "bearer");
    case SourceKind::basic:
      return writer.text(PolicyTag::source, "basic");
    case SourceKind::query:
      kind = "query:";
      break;
    case SourceKind::cookie:
      kind = "cookie:";
      break;
    case SourceKind::protocol:
      kind = "protocol:";
      break;
    case SourceKind::variable:
      kind = "$";
      break;
  }
  writer.entry(PolicyTag::source, std::as_bytes(std::span(kind)), view(source.name));
}

void write_limits(PolicyWriter& writer, const LocationPolicy& policy) noexcept {
  for (const PolicyLimit& limit : policy.limits) {
    write_limit(writer, {.kind = static_cast<std::uint8_t>(limit.limit.kind),
                         .by = static_cast<std::uint8_t>(limit.by),
                         .amount = limit.limit.kind == LimitKind::rate ? limit.limit.rate.amount : limit.limit.burst,
                         .period_ns = limit.limit.rate.period_ns,
                         .burst = limit.limit.burst,
                         .place = limit.limit.place,
                         .name = limit.limit.name});
  }
  for (const std::string_view name : policy.required_limits) {
    writer.text(PolicyTag::required_limit, name);
  }
  if (policy.fail_limit.is_on) {
    const RateLimit& limit = policy.fail_limit.limit;
    const std::array<std::uint64_t, 3> numbers = {limit.amount, limit.period_ns, limit.burst};
    writer.entry(PolicyTag::fail_limit, std::as_bytes(std::span(numbers)), {});
  }
}

void write_policy(PolicyWriter& writer, const LocConf& conf) noexcept {
  const LocationPolicy& policy = *conf.policy;
  writer.text(PolicyTag::realm, view(conf.realm));
  writer.text(PolicyTag::store, view(conf.store->name));
  writer.text(PolicyTag::store_path, view(conf.store->path));
  for (const Source& source : elements<Source>(conf.sources)) {
    write_source(writer, source);
  }
  for (const ScopeLine& line : policy.scope_lines) {
    writer.methods(PolicyTag::scope_line, line.methods);
    for (const std::string_view scope : line.scopes) {
      writer.text(PolicyTag::scope, scope);
    }
  }
  for (const std::string_view environment : policy.environments) {
    writer.text(PolicyTag::environment, environment);
  }
  write_limits(writer, policy);
}

void write_server(PolicyWriter& writer, const ngx_http_core_main_conf_t& core,
                  const ngx_http_core_srv_conf_t& server) noexcept {
  writer.text(PolicyTag::server, {});
  for (const ngx_http_server_name_t& name : elements<ngx_http_server_name_t>(server.server_names)) {
    writer.text(PolicyTag::server_name, view(name.name));
  }
  for (const ngx_http_conf_port_t& port : elements<ngx_http_conf_port_t>(core.ports)) {
    for (const ngx_http_conf_addr_t& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
      const auto servers = elements<ngx_http_core_srv_conf_t*>(address.servers);
      if (std::find(servers.begin(), servers.end(), &server) != servers.end()) {
        std::array<u_char, NGX_SOCKADDR_STRLEN> text;
        const std::size_t length =
            ngx_sock_ntop(address.opt.sockaddr, address.opt.socklen, text.data(), text.size(), 1);
        writer.text(PolicyTag::listen, {text_of(text.data()), length});
      }
    }
  }
}

void write_sites(PolicyWriter& writer, const ngx_http_core_main_conf_t& core, const MainConf& main) noexcept {
  const ngx_http_core_srv_conf_t* server = nullptr;
  for (const PolicySite& site : elements<PolicySite>(main.sites)) {
    if (site.server != server) {
      server = site.server;
      write_server(writer, core, *server);
    }
    const std::uint16_t flags = flags_of(site);
    const PolicyPlace place = place_of(site);
    writer.location(place, site.depth, flags, place == PolicyPlace::server ? "" : view(site.core->name));
    if (place == PolicyPlace::limit_except) {
      writer.methods(PolicyTag::except_methods, our_methods(site.outer->limit_except));
    }
    if (flags != 0) {
      write_policy(writer, *site.location);
    }
  }
}

}  // namespace

const ngx_http_core_loc_conf_t* core_of(void* const* loc_confs) noexcept {
  return static_cast<const ngx_http_core_loc_conf_t*>(loc_confs[ngx_http_core_module.ctx_index]);
}

MethodSet our_methods(ngx_uint_t methods) noexcept {
  MethodSet set = 0;
  for (const MethodName& method : kMethods) {
    set |= (methods & method.nginx) != 0 ? method.ours : 0U;
  }
  return set;
}

bool note_policy_place(ngx_conf_t* cf, MainConf& main, LocConf& conf) noexcept {
  const auto& context = *static_cast<ngx_http_conf_ctx_t*>(cf->ctx);
  auto* site = push_to<PolicySite>(&main.sites);
  if (site == nullptr) {
    return false;
  }
  site->location = &conf;
  site->core = core_of(context.loc_conf);
  site->server =
      static_cast<const ngx_http_core_srv_conf_t*>(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
  for (const LocConf* block = &conf; block->block.outer != nullptr; block = block->block.outer) {
    site->depth = static_cast<std::uint8_t>(std::min(site->depth + 1, UINT8_MAX));
  }
  site->depth = static_cast<std::uint8_t>(site->depth == 0 ? 0 : site->depth - 1);
  // nginx merges a block right behind the one around it and what that has: its site is there already.
  const auto sites = elements<PolicySite>(main.sites);
  for (auto other = sites.rbegin(); other != sites.rend() && site->depth != 0; ++other) {
    if (other->location == conf.block.outer) {
      site->outer = other->core;
      break;
    }
  }
  return true;
}

bool gather_policies(ngx_conf_t* cf, MainConf& main) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  PolicyWriter counting({});
  write_sites(counting, core, main);
  const std::size_t size = counting.needed();
  auto* bytes = static_cast<std::byte*>(ngx_palloc(cf->pool, std::max<std::size_t>(size, 1)));
  if (bytes == nullptr) {
    return false;
  }
  PolicyWriter writer({bytes, size});
  write_sites(writer, core, main);
  main.policies = {bytes, size};
  return true;
}

}  // namespace apikey::nginx
