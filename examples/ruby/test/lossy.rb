# frozen_string_literal: true

require 'socket'
require 'tmpdir'
require 'uri'

# A server's socket that can lose one reply: it lets the server do the work, and then closes the connection.
class Lossy
  attr_reader :url

  def initialize(url)
    @server = URI(url)
    @folder = Dir.mktmpdir('lossy-')
    @listening = UNIXServer.new(File.join(@folder, 'socket'))
    @url = "unix://#{@listening.path}"
    @thread = Thread.new { loop { pass(@listening.accept) } }
    @thread.report_on_exception = false
  end

  # Loses the next reply; gives what was sent during the block, one string for each time that it was sent.
  def lose_reply
    @sent = []
    @lose = true
    yield
    @sent
  ensure
    @lose = @sent = nil
  end

  def close
    @thread.kill
    @listening.close
    FileUtils.remove_entry(@folder)
  end

  private

  def connect
    @server.scheme == 'unix' ? UNIXSocket.new(@server.path) : TCPSocket.new(@server.host, @server.port)
  end

  # One connection to its end.
  def pass(client)
    server = connect
    until @lost
      IO.select([client, server]).first.each do |from|
        bytes = from.readpartial(65_536)
        from == client ? forward(bytes, server) : answer(bytes, client)
      end
    end
  rescue EOFError, Errno::EPIPE, Errno::ECONNRESET
    nil
  ensure
    @lost = false
    [client, server].compact.each(&:close)
  end

  # The commands of these tests are short: each comes in one piece.
  def forward(bytes, server)
    @sent << bytes if @sent && bytes.match?(/EVALSHA/in) # and not what greets a server
    server.write(bytes)
  end

  def answer(bytes, client)
    return client.write(bytes) unless @lose

    @lose = false
    @lost = true
  end
end
