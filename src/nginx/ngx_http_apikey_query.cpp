// Cuts the pairs of one name out of a query, wherever the query stands.
// Called in the preaccess phase. The old text is left to the caller, who overwrites what must not stay.
#include "ngx_http_apikey_query.hpp"

#include "apikey/credential.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kLineEnd = "\r\n";

// A place in new memory to which pieces of the old text are copied; it never writes more than it was made for.
struct Copy {
  u_char* at;
  void add(std::string_view piece) noexcept { at = ngx_cpymem(at, piece.data(), piece.size()); }
};

std::string_view between(const char* begin, const char* end) noexcept {
  return {begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

std::string_view query_of_uri(std::string_view uri) noexcept {
  const std::size_t mark = uri.find('?');
  return mark == std::string_view::npos ? std::string_view() : uri.substr(mark + 1);
}

std::string_view query_of_request_line(std::string_view line) noexcept {
  const std::size_t space = line.rfind(' ');
  if (space != std::string_view::npos && line.substr(space + 1).starts_with("HTTP/")) {
    line = line.substr(0, space);
  }
  return query_of_uri(line);
}

bool cut_query(ngx_pool_t* pool, ngx_str_t& text, std::string_view query, std::string_view name) noexcept {
  NamedValue found;
  std::string_view rest = query;
  if (!next_in_query(rest, name, found)) {
    return true;
  }
  const std::string_view old = view(text);
  auto* memory = static_cast<u_char*>(ngx_pnalloc(pool, old.size() + kLineEnd.size()));
  if (memory == nullptr) {
    return false;
  }
  Copy copy{memory};
  copy.add(between(old.data(), query.data()));
  u_char* const start = copy.at;
  const char* copied = query.data();
  for (rest = query; next_in_query(rest, name, found);) {
    copy.add(between(copied, found.whole.data()));
    copied = found.whole.data() + found.whole.size();
  }
  copy.add(between(copied, query.data() + query.size()));
  if (copy.at == start && start > memory && start[-1] == '?') {
    --copy.at;
  }
  copy.add(between(query.data() + query.size(), old.data() + old.size()));
  text = {static_cast<std::size_t>(copy.at - memory), memory};
  copy.add(kLineEnd);
  return true;
}

}  // namespace apikey::nginx
