// From the question of a forward-auth proxy to the facts of the request it asks about (see the header).
// Must never log a value: the client may have written it, and a URI may hold a key.
#include "ngx_http_apikey_question.hpp"

#include <algorithm>

#include "apikey/binding.hpp"
#include "ngx_http_apikey_content.hpp"
#include "ngx_http_apikey_header_list.hpp"
#include "ngx_http_apikey_query.hpp"
#include "ngx_http_apikey_request_line.hpp"
#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kRealAddress = "realip_remote_addr";

struct Fault {
  Outcome outcome = Outcome::ok;
  std::string_view part;
  const char* what = "";
};

// nginx drops no header for its value, but shows the first of several, or all of them in one.
std::size_t count_lines(ngx_http_request_t* r, std::string_view name) noexcept {
  std::size_t count = 0;
  for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
    for (const ngx_table_elt_t& line : elements<const ngx_table_elt_t>(part)) {
      count += line.hash != 0 && is_alike(line, name) ? 1 : 0;
    }
  }
  return count;
}

std::string_view value_of(ngx_http_request_t* r, const QuestionSource& source) noexcept {
  const auto* value = ngx_http_get_flushed_variable(r, static_cast<ngx_uint_t>(source.variable));
  return value == nullptr || value->not_found != 0 ? std::string_view()
                                                   : std::string_view(text_of(value->data), value->len);
}

// RETURNS: what is wrong; null: nothing, `value` is the only one.
const char* read_value(ngx_http_request_t* r, const QuestionSource& source, std::string_view& value) noexcept {
  if (!source.header.empty() && count_lines(r, source.header) > 1) {
    return "says it more than once";
  }
  value = value_of(r, source);
  return value.empty() ? "does not say it" : nullptr;
}

bool is_plain(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c != 0x7f; });
}

const char* read_method(std::string_view value, RequestFacts& facts) noexcept {
  facts.method = method_bit(value);
  return facts.method == 0 ? "names no method that nginx knows" : nullptr;
}

const char* read_uri(std::string_view value) noexcept {
  return value.front() == '/' && is_plain(value) ? nullptr : "is not a URI";
}

bool is_host_character(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

bool is_port(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// As nginx keeps a Host: in lower case, without port and last dot.
const char* read_host(ngx_pool_t* pool, std::string_view value, RequestFacts& facts) noexcept {
  const ngx_str_t copy = copy_to_pool(pool, value);
  if (copy.len != value.size()) {
    return "cannot be read, there is no memory";
  }
  ngx_strlow(copy.data, copy.data, copy.len);
  std::string_view host = view(copy);
  const bool is_ipv6 = host.front() == '[';
  const std::size_t end = is_ipv6 ? host.find(']') : host.find(':');
  std::string_view port = end == std::string_view::npos ? std::string_view() : host.substr(end + (is_ipv6 ? 1 : 0));
  host = host.substr(0, is_ipv6 && end != std::string_view::npos ? end + 1 : end);
  if (!port.empty() && (port.front() != ':' || !is_port(port.substr(1)))) {
    return "is not a host";
  }
  if (is_ipv6) {
    Network network;
    const bool is_good = end != std::string_view::npos && host.find('/') == std::string_view::npos &&
                         parse_network(host.substr(1, host.size() - 2), network).ok();
    facts.host = host;
    return is_good ? nullptr : "is not a host";
  }
  if (host.ends_with('.')) {
    host.remove_suffix(1);
  }
  facts.host = host;
  return !host.empty() && std::all_of(host.begin(), host.end(), is_host_character) ? nullptr : "is not a host";
}

const char* read_scheme(std::string_view value, RequestFacts& facts) noexcept {
  const auto is = [value](std::string_view scheme) {
    return value.size() == scheme.size() &&
           ngx_strncasecmp(to_ngx_str(value).data, to_ngx_str(scheme).data, scheme.size()) == 0;
  };
  facts.is_tls = is("https") || is("wss");
  return facts.is_tls || is("http") || is("ws") ? nullptr : "is neither http nor https";
}

const char* read_address(std::string_view value, RequestFacts& facts) noexcept {
  Network network;
  if (value.find('/') != std::string_view::npos || !parse_network(value, network).ok()) {
    return "is not an address";
  }
  facts.address = network.address;
  return nullptr;
}

Fault read_part(ngx_http_request_t* r, const QuestionConf& question, QuestionPart part, RequestFacts& facts) noexcept {
  constexpr std::array<Outcome, kQuestionParts> outcomes = {
      Outcome::wrong_method, Outcome::wrong_origin, Outcome::wrong_host, Outcome::tls_required, Outcome::wrong_address};
  if (!question.has(part)) {
    return {};
  }
  std::string_view value;
  const char* what = read_value(r, question.of(part), value);
  if (what == nullptr) {
    switch (part) {
      case QuestionPart::method:
        what = read_method(value, facts);
        break;
      case QuestionPart::uri:
        what = read_uri(value);
        break;
      case QuestionPart::host:
        what = read_host(r->pool, value, facts);
        break;
      case QuestionPart::scheme:
        what = read_scheme(value, facts);
        break;
      case QuestionPart::address:
        what = read_address(value, facts);
        break;
    }
  }
  const auto number = static_cast<std::size_t>(part);
  return what == nullptr ? Fault{} : Fault{outcomes[number], kQuestionPartNames[number], what};
}

// The address of whoever asks, also where realip has put the client's in its place.
std::string_view asker_of(ngx_http_request_t* r) noexcept {
  ngx_str_t name = to_ngx_str(kRealAddress);
  const auto* value = ngx_http_get_variable(r, &name, ngx_hash_key(name.data, name.len));
  return value == nullptr || value->not_found != 0 ? view(r->connection->addr_text)
                                                   : std::string_view(text_of(value->data), value->len);
}

bool is_trusted(const QuestionConf& question, std::string_view asker) noexcept {
  if (question.trusted == nullptr) {
    return true;
  }
  if (asker == "unix:") {
    return question.trusts_unix;
  }
  Network address;
  const auto networks = elements<const Network>(question.trusted);
  return parse_network(asker, address).ok() &&
         std::any_of(networks.begin(), networks.end(),
                     [&](const Network& network) { return contains(network, address.address); });
}

// What the question does not say of the original request is not known, whatever it may be of the question itself.
Fault read_question(ngx_http_request_t* r, const QuestionConf& question, RequestFacts& facts) noexcept {
  const std::string_view asker = asker_of(r);
  if (!is_trusted(question, asker)) {
    return {Outcome::wrong_address, "trusted", "comes from none of these networks"};
  }
  facts.has_address = question.has(QuestionPart::address) || asker != view(r->connection->addr_text);
  facts.is_tls = false;
  facts.host = {};
  for (std::size_t i = 0; i < kQuestionParts; ++i) {
    if (const Fault fault = read_part(r, question, static_cast<QuestionPart>(i), facts); fault.outcome != Outcome::ok) {
      return fault;
    }
  }
  return {};
}

bool says_facts(const QuestionConf& question) noexcept {
  return std::any_of(question.sources.begin(), question.sources.end(),
                     [](const QuestionSource& source) { return source.variable != NGX_ERROR; });
}

// True for a request that was sent to apikey_verify, not for a subrequest of one that asks itself.
bool is_question(const ngx_http_request_t* r, const LocConf& conf) noexcept {
  return r == r->main && conf.content == on_verify;
}

}  // namespace

Outcome read_facts(ngx_http_request_t* r, const LocConf& conf, RequestFacts& facts, bool log) noexcept {
  facts = request_facts(r);
  if (!is_question(r, conf)) {
    return Outcome::ok;
  }
  const QuestionConf* question = conf.question;
  facts.has_method = question != nullptr && question->has(QuestionPart::method);
  facts.method = 0;
  if (question == nullptr || (!says_facts(*question) && question->trusted == nullptr)) {
    return Outcome::ok;
  }
  const Fault fault = read_question(r, *question, facts);
  if (fault.outcome != Outcome::ok && log) {
    const ngx_str_t part = to_ngx_str(fault.part);
    ngx_log_error(conf.log_level, r->connection->log, 0,
                  "apikey_verify: refused: the question %s, as %V= of location \"%V\" asks", fault.what, &part,
                  &conf.location_name);
  }
  return fault.outcome;
}

std::string_view asked_uri(ngx_http_request_t* r, const LocConf& conf) noexcept {
  const bool has_uri = is_question(r, conf) && conf.question != nullptr && conf.question->has(QuestionPart::uri);
  return has_uri ? value_of(r, conf.question->of(QuestionPart::uri)) : std::string_view();
}

bool redact_asked_uri(ngx_http_request_t* r, const LocConf& conf) noexcept {
  if (!is_question(r, conf) || conf.question == nullptr || conf.question->of(QuestionPart::uri).header.empty()) {
    return true;
  }
  const QuestionSource& source = conf.question->of(QuestionPart::uri);
  for (ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
    for (ngx_table_elt_t& line : elements<ngx_table_elt_t>(part)) {
      if (line.hash != 0 && is_alike(line, source.header) &&
          !clean_line(r->pool, line.value, {names_in(*conf.argument_names), {}}, Shown::form)) {
        return false;
      }
    }
  }
  // What was read of it before is not shown again.
  r->variables[source.variable].valid = 0;
  r->variables[source.variable].not_found = 0;
  return true;
}

}  // namespace apikey::nginx
