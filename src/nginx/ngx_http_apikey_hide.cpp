// Hiding: header lines are taken out of the list, cookies and queries are rebuilt without the key, and the bytes that
// held it are overwritten, so that whoever kept a pointer to them has the pseudonym.
// Called in the preaccess phase, by the first variable that needs the key, or when a request is logged that came to
// neither. Must leave alone what is not a key of ours in a source that others share, and memory that is not the
// request's.
#include "ngx_http_apikey_hide.hpp"

#include <algorithm>
#include <array>

#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "ngx_http_apikey_ctx.hpp"
#include "ngx_http_apikey_header_list.hpp"
#include "ngx_http_apikey_own_memory.hpp"
#include "ngx_http_apikey_query.hpp"
#include "ngx_http_apikey_request.hpp"

namespace apikey::nginx {
namespace {

// Calls `act` for r and each of its parents. RETURNS: false as soon as `act` does.
template <typename Act>
bool up_to_main(ngx_http_request_t* r, Act act) noexcept {
  for (ngx_http_request_t* each = r; each != nullptr; each = each->parent) {
    if (!act(each)) {
      return false;
    }
    if (each == r->main) {
      break;
    }
  }
  return true;
}

struct Hiding {
  ngx_http_request_t* r;
  RequestCtx& ctx;
  Format format;
};

bool hide_line(const Hiding& hiding, ngx_table_elt_t* line, Pseudonym pseudonym) noexcept {
  if (!up_to_main(hiding.r, [line](ngx_http_request_t* each) noexcept { return remove_header(each, line); })) {
    return false;
  }
  overwrite(hiding.r, view(line->value), pseudonym);
  return true;
}

bool is_same_but_dashes(std::string_view a, std::string_view b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return x == y || ((x == '-' || x == '_') && (y == '-' || y == '_')); });
}

ngx_table_elt_t* find_line(ngx_http_request_t* r, const Source& source) noexcept {
  if (!source.is_any_dash) {
    return find_header(r, view(source.name));
  }
  HeaderLines lines(r, {});
  ngx_table_elt_t* line = lines.next();
  while (line != nullptr && !is_same_but_dashes({text_of(line->lowcase_key), line->key.len}, view(source.name))) {
    line = lines.next();
  }
  return line;
}

bool hide_lines(const Hiding& hiding, const Source& source) noexcept {
  while (ngx_table_elt_t* line = find_line(hiding.r->main, source)) {
    const Pseudonym pseudonym = pseudonym_of(hiding.r, view(line->value));
    const bool is_remembered = line->value.len == 0 || remember_hidden(hiding.r, hiding.ctx, source.named, pseudonym);
    if (!is_remembered || !hide_line(hiding, line, pseudonym)) {
      return false;
    }
  }
  return true;
}

bool is_ours(Found found) noexcept { return found == Found::key || found == Found::malformed; }

// auth_basic and $remote_user keep what they decoded.
bool forget_user(ngx_http_request_t* r, Pseudonym pseudonym) noexcept {
  return up_to_main(r, [pseudonym](ngx_http_request_t* each) noexcept {
    ngx_http_headers_in_t& headers = each->headers_in;
    if (headers.user.len > 0) {
      overwrite(each, view(headers.user), pseudonym);
      overwrite(each, view(headers.passwd), pseudonym);
      headers.user.len = 0;
      ngx_str_null(&headers.passwd);
    }
    return true;
  });
}

// $remote_user names the key, or somebody whose password it is.
bool remember_user(const Hiding& hiding, Pseudonym pseudonym, std::string_view key, std::string_view pair) noexcept {
  ngx_str_t name{0, nullptr};
  if (key.data() != pair.data()) {
    name = copy_to_pool(hiding.r->pool, pair.substr(0, pair.find(':')));
    if (name.len == 0) {
      return true;
    }
  }
  return remember_hidden(hiding.r, hiding.ctx, main_conf(hiding.r)->hidden_user, pseudonym, name);
}

bool hide_authorization(const Hiding& hiding, const Source& source) noexcept {
  ngx_table_elt_t* line = find_header(hiding.r->main, "authorization");
  if (line == nullptr) {
    return true;
  }
  std::array<char, kBasicBufferSize> buffer;
  const auto [found, key] = judge_authorization(source, hiding.format, *line, buffer);
  bool is_hidden = true;
  if (is_ours(found)) {
    const Pseudonym pseudonym = pseudonym_of(hiding.r, key);
    is_hidden = remember_hidden(hiding.r, hiding.ctx, source.named, pseudonym);
    if (source.kind == SourceKind::basic) {
      is_hidden = is_hidden && remember_user(hiding, pseudonym, key, {buffer.data(), buffer.size()}) &&
                  forget_user(hiding.r, pseudonym);
    }
    is_hidden = is_hidden && hide_line(hiding, line, pseudonym);
  }
  wipe(std::span<char>(buffer));
  return is_hidden;
}

// Rebuilds a line that others share without what is ours. RETURNS: false without memory.
bool cut_line(const Hiding& hiding, ngx_table_elt_t* line, const Source& source) noexcept {
  const SharedLine shared = shared_line(source.kind);
  Pseudonym pseudonym = 0;
  const std::string_view old = view(line->value);
  auto* memory = static_cast<u_char*>(ngx_pnalloc(hiding.r->pool, old.size() + 1));
  if (memory == nullptr) {
    return false;
  }
  u_char* end = memory;
  const char* copied = old.data();
  std::string_view rest = old;
  for (NamedValue found; shared.next(rest, view(source.name), found);) {
    if (is_ours(judge_credential(source.kind, hiding.format, found.value))) {
      end = ngx_cpymem(end, copied, found.whole.data() - copied);
      copied = found.whole.data() + found.whole.size();
      pseudonym = pseudonym_of(hiding.r, found.value);
      if (!remember_hidden(hiding.r, hiding.ctx, source.named, pseudonym)) {
        return false;
      }
      overwrite(hiding.r, found.value, pseudonym);
    }
  }
  if (copied == old.data()) {
    return true;
  }
  end = ngx_cpymem(end, copied, old.data() + old.size() - copied);
  // What is left may end in the separator of a member that is gone.
  while (end > memory && shared.separators.find(static_cast<char>(end[-1])) != std::string_view::npos) {
    --end;
  }
  *end = '\0';
  line->value = {static_cast<std::size_t>(end - memory), memory};
  return line->value.len > 0 || hide_line(hiding, line, pseudonym);
}

bool hide_in_lines(const Hiding& hiding, const Source& source) noexcept {
  // A line that becomes empty is taken out: the next one is looked for before.
  HeaderLines lines(hiding.r->main, shared_line(source.kind).header);
  for (ngx_table_elt_t* line = lines.next(); line != nullptr;) {
    ngx_table_elt_t* next = lines.next();
    if (!cut_line(hiding, line, source)) {
      return false;
    }
    line = next;
  }
  return true;
}

void overwrite_values(ngx_http_request_t* r, std::string_view query, std::string_view name,
                      Pseudonym pseudonym) noexcept {
  for (NamedValue found; next_in_query(query, name, found);) {
    overwrite(r, found.value, pseudonym);
  }
}

// Of the first value of that name. RETURNS: false when there is none.
bool find_argument(ngx_http_request_t* r, std::string_view query, std::string_view name,
                   Pseudonym& pseudonym) noexcept {
  for (NamedValue found; next_in_query(query, name, found);) {
    if (found.value.empty()) {
      continue;
    }
    std::array<char, kMaxKeyLength> buffer;
    std::string_view value;
    pseudonym = pseudonym_of(r, percent_decode(found.value, buffer, value) ? value : found.value);
    wipe(std::span<char>(buffer));
    return true;
  }
  return false;
}

bool cut_argument(ngx_http_request_t* each, std::string_view name, Pseudonym pseudonym) noexcept {
  const ngx_str_t args = each->args;
  const ngx_str_t uri = each->unparsed_uri;
  const ngx_str_t line = each->request_line;
  const std::string_view uri_query = query_of_uri(view(uri));
  const std::string_view line_query = query_of_request_line(view(line));
  if (!cut_query(each->pool, each->args, view(args), name) ||
      !cut_query(each->pool, each->unparsed_uri, uri_query, name) ||
      !cut_query(each->pool, each->request_line, line_query, name)) {
    return false;
  }
  // In HTTP/1 they are views of one buffer: nothing is overwritten before all are cut.
  for (const std::string_view query : {view(args), uri_query, line_query}) {
    overwrite_values(each, query, name, pseudonym);
  }
  return true;
}

bool hide_argument(const Hiding& hiding, const Source& source) noexcept {
  return up_to_main(hiding.r, [&](ngx_http_request_t* each) noexcept {
    Pseudonym pseudonym = 0;
    const bool has_value = find_argument(each, view(each->args), view(source.name), pseudonym) ||
                           find_argument(each, query_of_uri(view(each->unparsed_uri)), view(source.name), pseudonym);
    if (has_value && !remember_hidden(hiding.r, hiding.ctx, source.named, pseudonym)) {
      return false;
    }
    return cut_argument(each, view(source.name), pseudonym);
  });
}

bool hide_source(const Hiding& hiding, const Source& source) noexcept {
  switch (source.kind) {
    case SourceKind::header:
      return hide_lines(hiding, source);
    case SourceKind::scheme:
    case SourceKind::bearer:
    case SourceKind::basic:
      return hide_authorization(hiding, source);
    case SourceKind::cookie:
    case SourceKind::protocol:
      return hide_in_lines(hiding, source);
    case SourceKind::query:
      return hide_argument(hiding, source);
    case SourceKind::variable:
      return source.place == nullptr || hide_source(hiding, *source.place);
  }
  return true;
}

}  // namespace

ngx_int_t hide_credential(ngx_http_request_t* r, RequestCtx& ctx, const LocConf& conf) noexcept {
  const Hiding hiding{r, ctx, static_cast<Format>(conf.format)};
  const auto all = sources_of(conf);
  return std::all_of(all.begin(), all.end(), [&](const Source& source) { return hide_source(hiding, source); })
             ? NGX_OK
             : NGX_ERROR;
}

}  // namespace apikey::nginx
