// The directive apikey_verify, and the check that nobody but the operator's own proxies is believed by it.
// Called by nginx while it reads the configuration, and when all of it is read. Each refusal is a sentence: the
// directive, the value, what to write instead.
#include <algorithm>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_content.hpp"
#include "ngx_http_apikey_neighbours.hpp"
#include "ngx_http_apikey_question.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kHeaderVariable = "http_";

char* refuse(ngx_conf_t* cf, const ngx_str_t& text, const char* remedy) noexcept {
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_verify: \"%V\" %s", &text, remedy);
  return conf_error();
}

char* parse_status(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, ngx_uint_t& status) noexcept {
  if (status != 0) {
    return refuse(cf, text, "is the second status= of the line, write each parameter once");
  }
  if (value != "200" && value != "204") {
    return refuse(cf, text, "is not a status it can answer with, write status=200 or status=204");
  }
  status = value == "200" ? NGX_HTTP_OK : NGX_HTTP_NO_CONTENT;
  return NGX_CONF_OK;
}

char* parse_source(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, QuestionSource& source) noexcept {
  if (source.variable != NGX_ERROR) {
    return refuse(cf, text, "says a parameter of the line for the second time, write each once");
  }
  if (value.size() < 2 || value.front() != '$') {
    return refuse(cf, text, "names no variable, write $ and its name, such as method=$http_x_forwarded_method");
  }
  ngx_str_t name = to_ngx_str(value.substr(1));
  source.variable = ngx_http_get_variable_index(cf, &name);
  if (source.variable == NGX_ERROR) {
    return conf_error();
  }
  const ngx_str_t lower = copy_to_pool(cf->pool, view(name));
  if (lower.len != name.len) {
    return conf_error();
  }
  ngx_strlow(lower.data, lower.data, lower.len);
  source.header =
      view(lower).starts_with(kHeaderVariable) ? view(lower).substr(kHeaderVariable.size()) : std::string_view();
  return NGX_CONF_OK;
}

char* parse_trusted(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, QuestionConf& question) noexcept {
  if (question.trusted != nullptr) {
    return refuse(cf, text, "is the second trusted= of the line, write one list with commas between its networks");
  }
  question.trusted = ngx_array_create(cf->pool, 4, sizeof(Network));
  if (question.trusted == nullptr) {
    return conf_error();
  }
  while (true) {
    const std::size_t end = std::min(value.find(','), value.size());
    const std::string_view one = value.substr(0, end);
    Network network;
    if (one == "unix:") {
      question.trusts_unix = true;
    } else if (!parse_network(one, network).ok()) {
      return refuse(cf, text, "is not a list of networks, write such as trusted=10.0.0.0/8,2001:db8::/32 or unix:");
    } else if (auto* place = push_to<Network>(question.trusted); place != nullptr) {
      *place = network;
    } else {
      return conf_error();
    }
    if (end == value.size()) {
      return NGX_CONF_OK;
    }
    value.remove_prefix(end + 1);
  }
}

char* parse_parameter(ngx_conf_t* cf, const ngx_str_t& text, LocConf& location, QuestionConf& question) noexcept {
  const std::size_t equals = std::min(view(text).find('='), text.len);
  const std::string_view key = view(text).substr(0, equals);
  const std::string_view value = view(text).substr(std::min(equals + 1, text.len));
  if (equals != text.len && key == "status") {
    return parse_status(cf, text, value, location.verify_status);
  }
  if (equals != text.len && key == "trusted") {
    return parse_trusted(cf, text, value, question);
  }
  const auto* part = std::find(kQuestionPartNames.begin(), kQuestionPartNames.end(), key);
  if (equals == text.len || part == kQuestionPartNames.end()) {
    return refuse(cf, text,
                  "is not known, write status=200|204, method=$<variable>, uri=, host=, scheme=, address=, or "
                  "trusted=<networks>");
  }
  return parse_source(cf, text, value, question.sources[static_cast<std::size_t>(part - kQuestionPartNames.begin())]);
}

bool asks_for_certificates([[maybe_unused]] const ngx_cycle_t& cycle,
                           [[maybe_unused]] const ngx_http_core_srv_conf_t& server) noexcept {
#if (NGX_HTTP_SSL)
  const auto* ssl =
      static_cast<ngx_http_ssl_srv_conf_t*>(neighbour_conf(cycle, server.ctx->srv_conf, "ngx_http_ssl_module"));
  return ssl != nullptr && ssl->verify == 1;
#else
  return false;
#endif
}

bool is_of_this_machine(const sockaddr* address) noexcept {
  const void* any = address;
  switch (address->sa_family) {
    case AF_UNIX:
      return true;
    case AF_INET:
      return (ntohl(static_cast<const sockaddr_in*>(any)->sin_addr.s_addr) >> 24) == 127;
#if (NGX_HAVE_INET6)
    case AF_INET6:
      return IN6_IS_ADDR_LOOPBACK(&static_cast<const sockaddr_in6*>(any)->sin6_addr);
#endif
    default:
      return false;
  }
}

bool is_for(const ngx_http_conf_addr_t& address, const ngx_http_core_srv_conf_t* server) noexcept {
  const auto servers = elements<ngx_http_core_srv_conf_t*>(address.servers);
  return std::find(servers.begin(), servers.end(), server) != servers.end();
}

bool wants_tls([[maybe_unused]] const ngx_http_conf_addr_t& address) noexcept {
#if (NGX_HTTP_SSL)
  return address.opt.ssl != 0;
#else
  return false;
#endif
}

// Whether all that the server listens on is a unix socket, loopback, or asks for a client certificate.
bool listens_safely(ngx_conf_t* cf, const ngx_http_core_srv_conf_t& server) noexcept {
  const auto* core =
      static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  const bool has_certificates = asks_for_certificates(*cf->cycle, server);
  if (core->ports == nullptr) {
    return false;
  }
  for (const ngx_http_conf_port_t& port : elements<ngx_http_conf_port_t>(core->ports)) {
    for (const ngx_http_conf_addr_t& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
      if (is_for(address, &server) && !is_of_this_machine(address.opt.sockaddr) &&
          !(has_certificates && wants_tls(address))) {
        return false;
      }
    }
  }
  return true;
}

bool believes_headers(const QuestionConf& question) noexcept {
  return std::any_of(question.sources.begin(), question.sources.end(),
                     [](const QuestionSource& source) { return source.variable != NGX_ERROR; });
}

}  // namespace

char* set_verify(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  if (char* result = set_content(cf, cmd, location, on_verify); result != NGX_CONF_OK) {
    return result;
  }
  auto* question = pool_new<QuestionConf>(cf->pool);
  if (question == nullptr) {
    return conf_error();
  }
  location.verify_status = 0;
  for (const ngx_str_t& text : arguments(cf)) {
    if (parse_parameter(cf, text, location, *question) != NGX_CONF_OK) {
      return conf_error();
    }
  }
  location.verify_status = location.verify_status == 0 ? ngx_uint_t{NGX_HTTP_OK} : location.verify_status;
  location.question = question;
  return NGX_CONF_OK;
}

ngx_int_t check_questions(ngx_conf_t* cf, const MainConf& main) noexcept {
  for (const LocConf* conf : elements<LocConf*>(main.locations)) {
    const QuestionConf* question = conf->content == on_verify ? conf->question : nullptr;
    if (question == nullptr || !believes_headers(*question) || question->trusted != nullptr ||
        denies_somebody(*cf->cycle, conf->loc_confs) || listens_safely(cf, *conf->server)) {
      continue;
    }
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "apikey_verify: \"%V\" believes what anybody says of the original request; write "
        "trusted=<networks> with those of your proxies, or allow and deny, or let its server listen on a "
        "unix socket, on 127.0.0.1, or with ssl_verify_client on",
        &conf->location_name);
    return NGX_ERROR;
  }
  return NGX_OK;
}

}  // namespace apikey::nginx
