// From an nginx request to the core's terms: credential, digests, facts.
// Called by _handler. Must not change the request, nor leave a presented key in memory of ours.
#include "ngx_http_apikey_request.hpp"

#include <array>

#include "apikey/binding.hpp"
#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "apikey/key_form.hpp"
#include "ngx_http_apikey_header_list.hpp"
#include "ngx_http_apikey_query.hpp"
#include "ngx_http_apikey_question.hpp"

namespace apikey::nginx {
namespace {

// Gathers what all sources gave. A key that had to be decoded lives in one of two buffers: the one that Presented may
// refer to is never written again.
class Gathering {
 public:
  explicit Gathering(Format format) noexcept : format_(format) {}
  ~Gathering() {
    if (has_decoded_) {
      wipe(std::span<char>(first_));
      wipe(std::span<char>(second_));
    }
  }
  Gathering(const Gathering&) = delete;
  Gathering& operator=(const Gathering&) = delete;

  void read(ngx_http_request_t* r, const Source& source) noexcept {
    switch (source.kind) {
      case SourceKind::header:
        return read_header(r, view(source.name));
      case SourceKind::scheme:
      case SourceKind::bearer:
      case SourceKind::basic:
        return read_authorization(r, source);
      case SourceKind::query:
        return read_query(view(r->args), view(source.name));
      case SourceKind::cookie:
      case SourceKind::protocol:
        return read_shared_lines(r, source);
      case SourceKind::variable:
        return read_variable(r, source);
    }
  }

  void read_query(std::string_view query, std::string_view name) noexcept {
    for (NamedValue found; next_in_query(query, name, found);) {
      std::string_view decoded;
      if (!percent_decode(found.value, buffer(), decoded)) {
        add(Found::malformed, found.value);
        continue;
      }
      judge(SourceKind::query, decoded);
    }
  }

  [[nodiscard]] const Presented& presented() const noexcept { return presented_; }
  // Whether the text was meant as one of our keys, right or wrong.
  [[nodiscard]] bool has_own_form() const noexcept { return has_own_form_; }

 private:
  std::span<char> buffer() noexcept {
    has_decoded_ = true;
    return presented_.found() == Found::key ? second_ : first_;
  }

  void add(Found found, std::string_view value) noexcept {
    if (found == Found::key || found == Found::malformed) {
      has_own_form_ = has_own_form_ || apikey::has_own_form(value);
    }
    presented_.add(found, value);
  }
  void judge(SourceKind kind, std::string_view value) noexcept { add(judge_credential(kind, format_, value), value); }

  void read_header(ngx_http_request_t* r, std::string_view name) noexcept {
    HeaderLines lines(r, name);
    const ngx_table_elt_t* line = lines.next();
    if (line == nullptr) {
      return;
    }
    if (lines.next() != nullptr) {
      return add(Found::malformed, view(line->value));
    }
    judge(SourceKind::header, view(line->value));
  }

  void read_authorization(ngx_http_request_t* r, const Source& source) noexcept {
    // nginx refuses a second line of this name.
    if (const ngx_table_elt_t* line = r->headers_in.authorization) {
      const Judged judged = judge_authorization(source, format_, *line, buffer());
      add(judged.found, judged.value);
    }
  }

  void read_shared_lines(ngx_http_request_t* r, const Source& source) noexcept {
    const SharedLine shared = shared_line(source.kind);
    HeaderLines lines(r, shared.header);
    while (const ngx_table_elt_t* line = lines.next()) {
      std::string_view rest = view(line->value);
      for (NamedValue found; shared.next(rest, view(source.name), found);) {
        judge(source.kind, found.value);
      }
    }
  }

  void read_variable(ngx_http_request_t* r, const Source& source) noexcept {
    ngx_str_t name = source.name;
    const ngx_http_variable_value_t* value =
        source.place == nullptr ? ngx_http_get_indexed_variable(r, static_cast<ngx_uint_t>(source.variable))
                                : ngx_http_get_variable(r, &name, source.hash);
    if (value != nullptr && value->not_found == 0) {
      judge(SourceKind::variable, {text_of(value->data), value->len});
    }
  }

  Format format_;
  Presented presented_;
  bool has_own_form_ = false;
  bool has_decoded_ = false;  // a buffer was asked for
  std::array<char, kBasicBufferSize> first_;
  std::array<char, kBasicBufferSize> second_;
};

// One digest for each method the location's store may use; with several stores for every method, as the request may be
// redirected to a location of another store when the key is hidden.
void compute_digests(std::string_view key, const LocConf& conf, const MainConf& main, Credential& credential) noexcept {
  if (main.stores.nelts > 1 || conf.store == nullptr) {
    for (ngx_uint_t i = 0; i < main.method_count; ++i) {
      credential.digests[i] = main.methods[i](key);
    }
    return;
  }
  for (ngx_uint_t i = 0; i < conf.store->method_count; ++i) {
    const std::uint8_t method = conf.store->methods[i];
    credential.digests[method] = main.methods[method](key);
  }
}

std::span<const std::uint8_t> bytes_of(const void* memory, std::size_t size) noexcept {
  return {static_cast<const std::uint8_t*>(memory), size};
}

Address client_address(const ngx_connection_t& connection) noexcept {
  const void* address = connection.sockaddr;
  if (connection.sockaddr->sa_family == AF_INET) {
    return make_address(bytes_of(&static_cast<const sockaddr_in*>(address)->sin_addr, 4));
  }
#if (NGX_HAVE_INET6)
  if (connection.sockaddr->sa_family == AF_INET6) {
    return make_address(bytes_of(&static_cast<const sockaddr_in6*>(address)->sin6_addr, 16));
  }
#endif
  return {};
}

std::string_view header_value(const ngx_table_elt_t* line) noexcept {
  return line == nullptr ? std::string_view() : view(line->value);
}

}  // namespace

Judged judge_authorization(const Source& source, Format format, const ngx_table_elt_t& line,
                           std::span<char> buffer) noexcept {
  const std::string_view token = scheme_token(view(line.value), view(source.name));
  if (token.empty()) {
    return {};
  }
  if (source.kind == SourceKind::basic) {
    return judge_basic(format, token, buffer);
  }
  return {judge_credential(source.kind, format, token), token};
}

SharedLine shared_line(SourceKind kind) noexcept {
  return kind == SourceKind::cookie ? SharedLine{"cookie", next_in_cookie, "; "}
                                    : SharedLine{"sec-websocket-protocol", next_in_protocols, ", "};
}

void read_credential(ngx_http_request_t* r, const LocConf& conf, const MainConf& main, Credential& credential,
                     PresentedKey& key) noexcept {
  Gathering gathering(static_cast<Format>(conf.format));
  for (const Source& source : sources_of(conf)) {
    gathering.read(r->main, source);
    if (source.kind == SourceKind::query) {
      gathering.read_query(query_of_uri(asked_uri(r, conf)), view(source.name));
    }
  }
  credential.found = gathering.presented().found();
  credential.has_own_form = gathering.has_own_form();
  if (credential.found == Found::key) {
    key.keep(gathering.presented().key());
    compute_digests(key.text(), conf, main, credential);
  }
}

void read_key_again(ngx_http_request_t* r, const LocConf& conf, PresentedKey& key) noexcept {
  Gathering gathering(static_cast<Format>(conf.format));
  for (const Source& source : sources_of(conf)) {
    gathering.read(r->main, source);
  }
  if (gathering.presented().found() == Found::key) {
    key.keep(gathering.presented().key());
  }
}

RequestFacts request_facts(ngx_http_request_t* r) noexcept {
  ngx_http_request_t* main = r->main;
  RequestFacts facts;
  facts.address = client_address(*main->connection);
#if (NGX_HTTP_SSL)
  facts.is_tls = main->connection->ssl != nullptr;
#endif
  facts.method = method_bit(view(main->method_name));
  facts.origin = header_value(find_header(main, "origin"));
  facts.referer = header_value(main->headers_in.referer);
  facts.host = view(main->headers_in.server);
  return facts;
}

bool is_cors_preflight(ngx_http_request_t* r, const RequestFacts& facts) noexcept {
  return facts.method == kMethodOptions && find_header(r->main, "origin") != nullptr &&
         find_header(r->main, "access-control-request-method") != nullptr;
}

ngx_table_elt_t* find_header(ngx_http_request_t* r, std::string_view name) noexcept {
  return HeaderLines(r, name).next();
}

}  // namespace apikey::nginx
