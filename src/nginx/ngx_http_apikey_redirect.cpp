// Location headers that nginx has made from the URI of the request.
// Called for every answer that has one. Arguments that are no source stay, and so does every redirect to another host:
// what stands in it is written in the configuration.
#include "ngx_http_apikey_redirect.hpp"

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_query.hpp"
#include "ngx_http_apikey_request_line.hpp"

namespace apikey::nginx {
namespace {

// Ours, or outside of every location: nginx has not looked for one yet.
bool is_ours(ngx_http_request_t* r, const LocConf& conf) noexcept {
  if (conf.is_on) {
    return conf.hides && !conf.keeps_redirects;
  }
  const auto* core = static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
  return core->name.len == 0 && conf.hides && !conf.keeps_redirects;
}

// The host of `//host…` or `scheme://host…`; empty for a path.
std::string_view host_of(std::string_view url) noexcept {
  const std::size_t slashes = url.find("//");
  const bool has_host = slashes == 0 || (slashes != std::string_view::npos && slashes > 0 && url[slashes - 1] == ':' &&
                                         url.find_first_of("/?#") == slashes);
  if (!has_host) {
    return {};
  }
  std::string_view host = url.substr(slashes + 2);
  host = host.substr(0, host.find_first_of("/?#"));
  const std::size_t port = host.find_last_of(":]");
  return port != std::string_view::npos && host[port] == ':' ? host.substr(0, port) : host;
}

bool is_same_host(ngx_http_request_t* r, std::string_view host) noexcept {
  const ngx_str_t& own = r->headers_in.server;
  return host.empty() || (host.size() == own.len && ngx_strncasecmp(to_ngx_str(host).data, own.data, own.len) == 0);
}

}  // namespace

bool clean_redirect(ngx_http_request_t* r) noexcept {
  ngx_table_elt_t* location = r->headers_out.location;
  const SrvConf& server = *srv_conf(r);
  if (location == nullptr || location->hash == 0 || r->upstream != nullptr || !server.takes_from_line ||
      !is_ours(r, *loc_conf(r)) || !is_same_host(r, host_of(view(location->value)))) {
    return true;
  }
  const auto names = names_in(server.argument_names);
  for (const std::string_view name : names) {
    if (!cut_query(r->pool, location->value, query_of_uri(view(location->value)), name)) {
      return false;
    }
  }
  // What is left may hold a URI of its own: `/login?next=…`.
  return clean_line(r->pool, location->value, {names, {}}, Shown::nothing);
}

}  // namespace apikey::nginx
